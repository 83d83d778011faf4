"""The official package run beside this one: Preview, and steps of a small model."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

import mmdet_rfdetr
from mmdet_rfdetr.checkpoints import to_official
from tests import golden, parity
from tests.interpreter import run
from tests.live import PYTHON, ask, compare_eval, compare_train, needs_official

pytestmark = [needs_official, pytest.mark.slow]

QUERIES = 40
CASE = dict(
    config_class='RFDETRKeypointPreviewConfig',
    model=dict(num_queries=QUERIES, num_select=QUERIES, num_classes=1),
    seed=6,
    batch_size=(120, 168),
    sizes=[(120, 168), (120, 144)],
    original_sizes=[(150, 211), (97, 60)],
    counts=[3, 1],
)
STEPS = dict(golden.CASES['keypoints'], steps=32, seed=1)


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """The official evaluation and training step, of the shipped config's sizes."""
    config = Config.fromfile(mmdet_rfdetr.config('rfdetr-pose_preview_coco.py'))
    config = config.model.to_dict()
    config.update(precision=None, data_preprocessor=None, num_queries=QUERIES)
    config['bbox_head']['num_classes'] = 2
    config['keypoint_head']['score_mode'] = 'fused'
    config['test_cfg']['max_per_img'] = QUERIES
    folder = tmp_path_factory.mktemp('preview')
    evaluated, trained = ask(folder, [golden.evaluation(CASE), CASE])
    (folder / 'answer.npz').unlink()
    return config, evaluated, trained


def test_evaluation(answers):
    config, expected, _ = answers
    model = parity.rule_model(config, CASE['seed'])
    stages = compare_eval(CASE, model, expected, parity.EVAL_TOLERANCES)
    for name in ('pred_logits', 'pred_boxes', 'pred_keypoints'):
        difference = np.abs(stages[name] - expected[name]).max()
        print(f'preview at {CASE["batch_size"]}: {name} differ by {difference:.1e}')


def test_training(answers):
    config, _, expected = answers
    stages = compare_train(CASE, config, expected)
    terms = [name for name in expected if name.startswith('loss/loss_keypoints_')]
    assert len(terms) == 4 * 5
    worst = max(abs(stages[name] / expected[name] - 1) for name in terms)
    norm = stages['grad_total_norm'] / expected['grad_total_norm'] - 1
    print(f'preview: keypoint losses differ by {worst:.1e}, gradients by {norm:.1e}')


def test_steps_of_the_optimizer(tmp_path):
    """All terms of 32 steps, each on another batch, from the same start."""
    (expected,) = ask(tmp_path, [STEPS])
    config = parity.case_config(STEPS)
    model = parity.rule_model(config, STEPS['seed']).train()
    settings = Config.fromfile(mmdet_rfdetr.config('rfdetr-pose_preview_coco.py'))
    settings = settings.optim_wrapper
    optimizer = build_optim_wrapper(model, dict(settings, type='OptimWrapper'))
    found = []
    for step in range(STEPS['steps']):
        images, samples = parity.case_batch(dict(STEPS, seed=1 + step), config)
        losses = model(images, samples, 'loss')
        optimizer.update_params(sum(losses.values()))
        found.append(
            {parity.official_term(n): float(x.detach()) for n, x in losses.items()}
        )
    worst = np.zeros(STEPS['steps'])
    for name, wanted in expected.items():
        ours = np.array([terms[name.removeprefix('loss/')] for terms in found])
        worst = np.maximum(worst, np.abs(ours - wanted) / (np.abs(wanted) + 0.1))
    print('largest difference of a term, by step:', *(f'{x:.0e}' for x in worst))
    assert worst.max() < 1e-4


@pytest.mark.parametrize('schema', ([17], [0, 17]))
def test_the_official_package_takes_what_is_written(schema, tmp_path):
    """Into the model of its own with this schema, every entry and no other."""
    sizes = dict(golden.CASES['keypoints']['model'])
    sizes.update(num_classes=1, num_keypoints_per_class=schema)
    model = parity.rule_model(parity.model_config(sizes, 2))
    torch.save(dict(to_official(model.state_dict())), tmp_path / 'model.pth')
    lines = [
        'import torch; from tests import official',
        f'case = dict(config_class="RFDETRKeypointPreviewConfig", model={sizes!r})',
        'model, *_ = official.construct(dict(case, seed=0))',
        f'weights = torch.load({str(tmp_path / "model.pth")!r})',
        'theirs = model.state_dict()',
        'assert theirs.keys() == weights.keys()',
        'model.load_state_dict(weights)',
        'masks = [n for n in theirs if n.endswith("_mask")]',
        'assert len(masks) == 2, masks',
        'assert all(theirs[n].equal(weights[n]) for n in masks)',
    ]
    answer = run([PYTHON, '-W', 'ignore', '-c', '\n'.join(lines)])
    assert answer.returncode == 0, answer.stderr
