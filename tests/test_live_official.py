"""The official package itself, run beside this one.

It is an optional extra, ``pip install rfdetr==1.11.2``. Where the two cannot live
together, ``RFDETR_OFFICIAL_PYTHON`` names the Python of another environment that has
it. These tests skip without either.
"""

import importlib.util
import json
import os
import random
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import mmdet_rfdetr
from tests import golden, golden_rule, parity
from tests.interpreter import run

PYTHON = os.environ.get('RFDETR_OFFICIAL_PYTHON') or (
    sys.executable if importlib.util.find_spec('rfdetr') else None
)
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason='official package absent: install rfdetr or set RFDETR_OFFICIAL_PYTHON',
)

_LARGEST = dict(
    encoder='dinov2_windowed_base',
    patch_size=20,
    hidden_dim=512,
    sa_nheads=16,
    ca_nheads=32,
    dec_n_points=4,
    dec_layers=5,
    out_feature_indexes=[3, 6, 9, 12],
)
# Config here, official configuration class and what it lacks, size of the input in
# steps of patch times windows. The official classes of the two largest are in a package
# with another licence, their sizes are known.
VARIANTS = {
    'nano': ('RFDETRNanoConfig', {}, (5, 7)),
    'small': ('RFDETRSmallConfig', {}, (5, 7)),
    'medium': ('RFDETRMediumConfig', {}, (6, 5)),
    'base': ('RFDETRBaseConfig', {}, (3, 2)),
    'large': ('RFDETRLargeConfig', {}, (6, 5)),
    'large-deprecated': ('RFDETRLargeDeprecatedConfig', {}, (2, 3)),
    'xlarge': (
        'RFDETRBaseConfig',
        dict(_LARGEST, num_windows=1, positional_encoding_size=35, resolution=700),
        (8, 10),
    ),
    '2xlarge': (
        'RFDETRBaseConfig',
        dict(_LARGEST, num_windows=2, positional_encoding_size=44, resolution=880),
        (5, 4),
    ),
}


def ask(folder, cases):
    """Let the official package work on cases, in a process of its own."""
    request, answer = folder / 'request.json', folder / 'answer.npz'
    request.write_text(json.dumps(cases))
    result = run([PYTHON, '-W', 'ignore', '-m', 'tests.official', request, answer])
    assert result.returncode == 0, result.stderr
    with np.load(answer) as archive:
        found = [{} for _ in cases]
        for key in archive.files:
            index, name = key.split('/', 1)
            found[int(index)][name] = archive[key]
    return found


def without_unused_blocks(expected, model):
    """Official stages of blocks that this package does not build."""
    built = len(model.backbone.blocks)
    unused = {f'block_{index}' for index in range(built, 12)}
    layers = tuple(f'.encoder.layer.{index}.' for index in range(built, 12))
    return {
        name: value
        for name, value in expected.items()
        if name not in unused and not any(layer in name for layer in layers)
    }


def compare_eval(case, model, expected, tolerances):
    """Compare all stages of an evaluation; our stages."""
    images, _ = golden_rule.images(case['sizes'], case['batch_size'], case['seed'])
    samples = parity.make_samples(case['sizes'], case['batch_size'])
    stages = parity.eval_stages(model, images, samples)
    expected = without_unused_blocks(expected, model)
    detections = [expected.pop(name) for name in list(expected) if 'image' in name]
    parity.assert_stages_agree(stages, expected, tolerances)
    results = model.bbox_head.predict_by_feat(
        torch.from_numpy(stages['pred_logits']),
        torch.from_numpy(stages['pred_boxes']),
        batch_img_metas=[sample.metainfo for sample in samples],
    )
    for image, result in enumerate(results):
        scores, labels, boxes = detections[3 * image : 3 * image + 3]
        parity.assert_detections_agree(
            f'image{image}',
            dict(result.items()),
            dict(scores=scores, labels=labels, bboxes=boxes),
            box_margin=2e-5 * max(case['batch_size']),
        )
    return stages


def compare_train(case, config, expected):
    """Compare all stages of a training step."""
    make_weight = weight_of(case)
    model = parity.build_model(config, make_weight)
    images, _ = golden_rule.images(case['sizes'], case['batch_size'], case['seed'])
    objects = golden_rule.objects(
        case['counts'], config['bbox_head']['num_classes'], case['seed']
    )
    samples = parity.make_samples(case['sizes'], case['batch_size'], objects)
    stages = parity.train_stages(model, images, samples)
    expected = {
        name: value
        for name, value in without_unused_blocks(expected, model).items()
        if not name.endswith('.attention.key.bias')
    }
    parity.assert_stages_agree(stages, expected, parity.TRAIN_TOLERANCES)
    parity.assert_few_gradients_jump(stages, expected)


def weight_of(case):
    return lambda name, shape: golden_rule.weight(name, shape, case['seed'])


@pytest.mark.slow
@pytest.mark.parametrize('variant', VARIANTS)
def test_shipped_config(variant, tmp_path):
    """Every stage of a variant, as its config says, on an input that is not square."""
    official, sizes, steps = VARIANTS[variant]
    path = mmdet_rfdetr.config(f'rfdetr_{variant}_coco.py')
    config = Config.fromfile(path).model.to_dict()
    config.update(precision=None, data_preprocessor=None, num_queries=40)
    config['bbox_head']['num_classes'] = 91
    config['test_cfg']['max_per_img'] = 40
    divisor = config['backbone']['patch_size'] * config['backbone']['num_windows']
    height, width = (divisor * step for step in steps)
    case = dict(
        config_class=official,
        model=dict(sizes, num_queries=40, num_select=40, num_classes=90),
        seed=6,
        batch_size=(height, width),
        sizes=[(height, width)],
    )
    (expected,) = ask(tmp_path, [case])
    model = parity.build_model(config, weight_of(case))
    stages = compare_eval(case, model, expected, parity.EVAL_TOLERANCES)
    for name in ('pred_logits', 'pred_boxes'):
        difference = np.abs(stages[name] - expected[name]).max()
        print(f'{variant} at {height} x {width}: {name} differ by {difference:.1e}')


def random_case(seed):
    """A small model, padded images and objects."""
    draw = random.Random(seed)
    windows = draw.choice((1, 2, 3))
    patch = draw.choice((4, 8, 14))
    divisor = windows * patch
    blocks = draw.choice((3, 4, 6))
    scales = draw.choice((['P4'], ['P3', 'P5'], ['P3', 'P4', 'P5'], ['P5']))
    # With P5 the patches of a side must be even in number.
    steps = [2 * draw.randint(1, 3) for _ in range(2)]
    batch_size = [divisor * step for step in steps]
    sizes = [
        [draw.randint(3 * side // 4, side) for side in batch_size] for _ in range(2)
    ]
    sizes.append(batch_size)
    registers = draw.choice((0, 3))
    return dict(
        model=dict(
            golden.CASES['windows']['model'],
            encoder='dinov2_registers_windowed_small',
            patch_size=patch,
            num_windows=windows,
            positional_encoding_size=draw.randint(3, 9),
            out_feature_indexes=sorted(draw.sample(range(1, blocks + 1), 2)),
            projector_scale=scales,
            hidden_dim=draw.choice((16, 32)),
            dec_layers=draw.randint(1, 4),
            dec_n_points=draw.choice((1, 2, 3)),
            num_queries=draw.choice((5, 9)),
            group_detr=draw.choice((1, 4)),
            vit=dict(
                hidden_size=24,
                num_attention_heads=draw.choice((2, 3)),
                num_hidden_layers=blocks,
                num_register_tokens=registers,
            ),
        ),
        seed=seed,
        batch_size=batch_size,
        sizes=sizes,
        counts=[draw.randint(0, 4) for _ in sizes],
    )


def config_of(case):
    sizes = case['model']
    return parity.model_config(sizes, sizes['num_classes'] + 1)


SEEDS = range(12)


@pytest.fixture(scope='module')
def random_answers(tmp_path_factory):
    cases = [random_case(seed) for seed in SEEDS]
    answers = ask(
        tmp_path_factory.mktemp('official'),
        [*map(golden.evaluation, cases), *cases],
    )
    evaluated, trained = answers[: len(cases)], answers[len(cases) :]
    return dict(zip(SEEDS, zip(evaluated, trained, strict=True), strict=True))


@pytest.mark.parametrize('seed', SEEDS)
def test_random_small_model(seed, random_answers):
    case = random_case(seed)
    evaluated, trained = random_answers[seed]
    model = parity.build_model(config_of(case), weight_of(case))
    compare_eval(case, model, evaluated, parity.SMALL_TOLERANCES)
    compare_train(case, config_of(case), trained)


SWITCHES = {
    'RFDETRVarifocalLoss': dict(ia_bce_loss=False, use_varifocal_loss=True),
    'RFDETRPositionSupervisedLoss': dict(
        ia_bce_loss=False, use_position_supervised_loss=True
    ),
    'RFDETRSigmoidFocalLoss': dict(ia_bce_loss=False),
}


def test_other_losses(tmp_path):
    case = golden.CASES['levels']
    answers = ask(tmp_path, [dict(case, criterion=c) for c in SWITCHES.values()])
    for loss, expected in zip(SWITCHES, answers, strict=True):
        config = config_of(case)
        config['bbox_head']['loss_cls'] = dict(type=loss)
        compare_train(case, config, expected)


def test_fresh_models_are_alike(tmp_path):
    """Means and deviations of all parameters, as far as their number can tell."""
    case = dict(model=golden.CASES['levels']['model'], seed=1)
    (expected,) = ask(tmp_path, [case])
    model = MODELS.build(config_of(case))
    expected = without_unused_blocks(expected, model)
    ours = parity.official_entries(model.state_dict())
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        mean, deviation = expected[name]
        noise = 4 / np.sqrt(value.numel())
        assert value.mean().item() == pytest.approx(
            mean, abs=2 * noise * deviation + 1e-6
        ), name
        assert value.std(correction=0).item() == pytest.approx(
            deviation, rel=noise, abs=1e-6
        ), name
