"""The official package run beside this one, on all segmentation variants."""

import numpy as np
import pytest
from mmengine.config import Config

import mmdet_rfdetr
from tests import golden, parity
from tests.live import (
    ask,
    compare_eval,
    compare_train,
    needs_official,
)

pytestmark = [needs_official, pytest.mark.slow]

QUERIES = 40
# Official configuration class; the input in steps of patch times windows, never square.
VARIANTS = {
    'preview': ('RFDETRSegPreviewConfig', (4, 5)),
    'nano': ('RFDETRSegNanoConfig', (7, 10)),
    'small': ('RFDETRSegSmallConfig', (5, 4)),
    'medium': ('RFDETRSegMediumConfig', (3, 6)),
    'large': ('RFDETRSegLargeConfig', (4, 6)),
    'xlarge': ('RFDETRSegXLargeConfig', (5, 3)),
    '2xlarge': ('RFDETRSeg2XLargeConfig', (4, 5)),
}
ORIGINAL_SIZES = [(150, 211), (97, 60)]


@pytest.fixture(scope='module', params=VARIANTS)
def answers(request, tmp_path_factory):
    """Config and case of a variant, and the official evaluation and training step."""
    variant = request.param
    official, steps = VARIANTS[variant]
    path = mmdet_rfdetr.config(f'rfdetr-seg_{variant}_coco.py')
    config = Config.fromfile(path).model.to_dict()
    config.update(precision=None, data_preprocessor=None, num_queries=QUERIES)
    config['bbox_head']['num_classes'] = 91
    config['test_cfg']['max_per_img'] = QUERIES
    divisor = config['backbone']['patch_size'] * config['backbone']['num_windows']
    size = tuple(divisor * step for step in steps)
    case = dict(
        config_class=official,
        model=dict(num_queries=QUERIES, num_select=QUERIES),
        seed=6,
        batch_size=size,
        sizes=[size] * 2,
        original_sizes=ORIGINAL_SIZES,
        counts=[3, 1],
    )
    source = dict(points=parity.points_of(case))
    config['bbox_head']['loss_mask'].update(source)
    config['train_cfg']['assigner'].update(source)
    folder = tmp_path_factory.mktemp(variant)
    evaluated, trained = ask(folder, [golden.evaluation(case), case])
    (folder / 'answer.npz').unlink()  # all gradients: some hundred MB
    return variant, config, case, evaluated, trained


def test_evaluation(answers):
    """All stages with their masks, and detections with masks of the original size."""
    variant, config, case, expected, _ = answers
    model = parity.rule_model(config, case['seed'])
    stages = compare_eval(case, model, expected, parity.EVAL_TOLERANCES)
    for name in ('pred_logits', 'pred_boxes', 'pred_masks'):
        difference = np.abs(stages[name] - expected[name]).max()
        print(f'{variant} at {case["batch_size"]}: {name} differ by {difference:.1e}')


def test_training(answers):
    """The factors of the masks, matches, losses and gradients."""
    variant, config, case, _, expected = answers
    stages = compare_train(case, config, expected)
    terms = [name for name in expected if name.startswith('loss/loss_mask_')]
    assert len(terms) == 2 * (config['decoder']['num_layers'] + 1)
    worst = max(abs(stages[name] / expected[name] - 1) for name in terms)
    norm = stages['grad_total_norm'] / expected['grad_total_norm'] - 1
    print(f'{variant}: mask losses differ by {worst:.1e}, gradients by {norm:.1e}')
