"""The official package itself, run beside this one, on all detection variants."""

import random

import numpy as np
import pytest
from mmdet.registry import MODELS
from mmengine.config import Config

import mmdet_rfdetr
from tests import golden, parity
from tests.live import (
    ask,
    compare_eval,
    compare_train,
    needs_official,
)

pytestmark = needs_official

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
    model = parity.rule_model(config, case['seed'])
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
    model = parity.rule_model(parity.case_config(case), seed)
    compare_eval(case, model, evaluated, parity.SMALL_TOLERANCES)
    compare_train(case, parity.case_config(case), trained)


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
        config = parity.case_config(case)
        config['bbox_head']['loss_cls'] = dict(type=loss)
        compare_train(case, config, expected)


def test_fresh_models_are_alike(tmp_path):
    """Means and deviations of all parameters, as far as their number can tell."""
    case = dict(model=golden.CASES['levels']['model'], seed=1)
    (expected,) = ask(tmp_path, [case])
    model = MODELS.build(parity.case_config(case))
    expected = parity.without_unused_blocks(expected, model)
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
