"""The numbers of the official package on full-size models, stage by stage."""

import re

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.matching import Stages
from tests import parity
from tests.fixtures import load_json, load_pair, needs_fixtures, rule, strided

pytestmark = needs_fixtures

EVAL_CASES = ('nano', 'nano_q30', 'nano_few_tokens', 'medium')
TRAIN_CASES = (
    'nano_few_tokens',
    *(
        pytest.param(case, marks=pytest.mark.long)
        for case in ('nano', 'nano_q30', 'medium')
    ),
)


def build(case, *, training):
    """Model and config of a case."""
    config = load_json(f'{case}/config')
    sizes = dict(config['model'])
    seed = config['case_seed']
    if training:
        sizes.update(config['train_overrides'])
        seed = config['train_case_seed']
    rules = rule()

    def points(name, shape, device):
        return torch.from_numpy(rules.uniform(f'rand/{name}', seed, shape))

    model = parity.build_model(
        parity.model_config(sizes, config['num_logits'], points),
        lambda name, shape: rules.weight(name, shape, seed),
    )
    official = {
        entry['name']: tuple(entry['shape'])
        for entry in load_json(f'{case}/params')
        if entry['dtype'] == 'float32'
    }
    ours = parity.official_entries(model.state_dict())
    assert ours.keys() == official.keys()
    if not training:
        assert {name: tuple(value.shape) for name, value in ours.items()} == official
    return model, config


def fixture_view(description):
    """Reduce an array of ours to what the fixture stores of it."""

    def view(name, value):
        entry = description[name]
        assert list(value.shape) == entry['shape'], (
            f'{name} is the first stage that diverges: its shape is {value.shape} and '
            f'should be {entry["shape"]}'
        )
        return strided(value, entry['stride'])

    return view


def print_largest(title, ours, expected, view, names, relative=False):
    """Show with ``pytest -s`` how far stages whose names match are apart."""
    worst = 0
    for name in expected:
        if re.fullmatch(names, name):
            wanted = np.asarray(expected[name], np.float64)
            difference = np.abs(view(name, ours[name]) - wanted)
            scale = np.abs(wanted) if relative else 1
            worst = max(worst, (difference / scale).max())
    print(f'\n{title} differ by {worst:.1e} at most', end='')


def assert_sums_agree(ours, description):
    """Compare what the fixture tells of the whole arrays, not only of a part."""
    for name, value in ours.items():
        entry = description.get(name)
        if entry is None or 'abs_sum' not in entry or entry['stride'] == 1:
            continue
        total = np.abs(value.astype(np.float64)).sum()
        assert total == pytest.approx(entry['abs_sum'], rel=1e-5), (
            f'{name} is the first stage that diverges: its sum is {total} and should '
            f'be {entry["abs_sum"]}'
        )


@pytest.fixture(scope='module', params=EVAL_CASES)
def evaluated(request):
    return evaluate(request.param)


def evaluate(case):
    """Case, model, config, and the stages of its images."""
    model, config = build(case, training=False)
    (height, width), *_ = config['eval_input']
    images = rule().image_batch(
        config['case_seed'], len(config['eval_input']), height, width
    )
    return case, model, config, parity.eval_stages(model, images)


def test_eval_stages(evaluated):
    case, _, _, stages = evaluated
    arrays, description = load_pair(f'{case}/eval')
    expected = {
        name: array
        for name, array in arrays.items()
        if name not in ('input', 'input_mask')
    }
    ours = dict(stages, references=stages['references'][None])
    parity.assert_stages_agree(
        ours, expected, parity.EVAL_TOLERANCES, fixture_view(description)
    )
    assert_sums_agree(ours, description)
    for names in (r'backbone_\d+', 'pred_logits', 'pred_boxes'):
        print_largest(
            f'{case}: {names}', ours, expected, fixture_view(description), names
        )


def test_detections(evaluated):
    case, model, config, stages = evaluated
    arrays, description = load_pair(f'{case}/detections')
    for index, sizes in enumerate(description['target_sizes']):
        found = detect(model.bbox_head, stages, config['eval_input'], sizes)
        for image, result in enumerate(found):
            prefix = f'size{index}_image{image}'
            expected = dict(
                scores=arrays[f'{prefix}_scores'],
                labels=arrays[f'{prefix}_labels'],
                bboxes=arrays[f'{prefix}_boxes'],
            )
            parity.assert_detections_agree(
                prefix, result, expected, box_margin=2e-5 * max(sizes[image])
            )


def detect(head, stages, input_sizes, original_sizes):
    """Detections in pixels of the original images."""
    metas = [
        dict(
            img_shape=(height, width),
            scale_factor=(width / original_width, height / original_height),
        )
        for (height, width), (original_height, original_width) in zip(
            input_sizes, original_sizes, strict=True
        )
    ]
    return [
        dict(result.items())
        for result in head.predict_by_feat(
            Stages(
                [torch.from_numpy(stages['pred_logits'])],
                [torch.from_numpy(stages['pred_boxes'])],
            ),
            batch_img_metas=metas,
        )
    ]


@pytest.mark.parametrize('select', (30, 60))
def test_equal_scores_are_ordered_by_query_and_class(select):
    arrays, description = load_pair('postprocess')
    seed = description['case_seed']
    numbers = rule().noise('post/logits', seed, (2, 60, 91))
    logits = (np.round(numbers * 16) / 16 - 1).astype(np.float32)
    head = MODELS.build(
        dict(
            type='RFDETRHead',
            num_classes=91,
            embed_dims=8,
            loss_cls=dict(type='RFDETRIoUAwareBCELoss'),
            loss_bbox=dict(type='L1Loss'),
            loss_iou=dict(type='GIoULoss'),
            test_cfg=dict(max_per_img=select),
        )
    )
    outputs = dict(pred_logits=logits, pred_boxes=arrays['input_boxes'])
    for index, sizes in enumerate(description['target_sizes']):
        # The network's input may have had any size: say half of the original.
        inputs = [(height / 2, width / 2) for height, width in sizes]
        for image, result in enumerate(detect(head, outputs, inputs, sizes)):
            prefix = f'det_select{select}_size{index}_image{image}'
            assert (result['labels'].numpy() == arrays[f'{prefix}_labels']).all()
            for ours, name in (
                (result['scores'], 'scores'),
                (result['bboxes'], 'boxes'),
            ):
                np.testing.assert_allclose(
                    ours, arrays[f'{prefix}_{name}'], rtol=1e-6, atol=1e-4
                )


@pytest.mark.parametrize('case', TRAIN_CASES)
def test_train_stages(case):
    check_train_stages(case)


def check_train_stages(case):
    model, config = build(case, training=True)
    expected, view, description = expected_training(case)
    stages = train(model, config)
    tolerances = parity.TRAIN_TOLERANCES
    if case == 'nano':
        tolerances = parity.NEAR_TIES
        expected = {
            name: value
            for name, value in expected.items()
            if any(re.fullmatch(pattern, name) for pattern, _ in tolerances)
        }
    parity.assert_stages_agree(stages, expected, tolerances, view)
    if case != 'nano':
        parity.assert_few_gradients_jump(stages, expected, view)
    for names in ('loss/.*', 'grad_total_norm'):
        print_largest(f'{case}: {names}', stages, expected, view, names, relative=True)
    assert gradient_free(model, stages) == set(description['grad_none'])


@pytest.mark.long
def test_train_stages_after_the_same_selection():
    """With ties in the selection decided the official way, ``nano`` is strict, too."""
    model, config = build('nano', training=True)
    expected, view, _ = expected_training('nano')
    with parity.forced_selection(expected['enc_topk_index']):
        stages = train(model, config)
    parity.assert_stages_agree(stages, expected, parity.TRAIN_TOLERANCES, view)
    parity.assert_few_gradients_jump(stages, expected, view)


def gradient_free(model, stages):
    """Official names of the entries that got no gradient."""
    entries = parity.official_entries(model.state_dict())
    return {
        name
        for name in entries
        if f'grad/{name}' not in stages and not name.endswith('.attention.key.bias')
    }


def train(model, config):
    seed = config['train_case_seed']
    sizes = config['train_input']
    height, width = sizes[0]
    mask_size = (height, width) if config['model']['segmentation_head'] else None
    schema = config['model'].get('num_keypoints_per_class')
    objects = rule().targets(
        seed,
        config['target_counts'],
        len(schema) if schema else config['num_logits'],
        mask_size,
    )
    if schema:
        objects = rule().keypoint_targets(seed, objects, schema)
    stages = parity.train_stages(
        model,
        rule().image_batch(seed, len(sizes), height, width),
        parity.make_samples(sizes, (height, width), objects),
    )
    return dict(stages, references=stages['references'][None])


def expected_training(case):
    """Official numbers of a training step, the view of ours, and the description."""
    arrays, description = load_pair(f'{case}/train')
    expected = dict(arrays)
    for name, value in description['losses'].items():
        if name in description['weights']:
            weighted = description['weights'][name] * value
            expected[f'loss/{name}'] = np.float64(weighted)
        else:
            expected[f'error/{name}'] = np.float64(value)
    for name in ('num_boxes', 'total', 'grad_total_norm'):
        expected[name] = np.float64(description[name])
    for name, norm in description['grad_norm'].items():
        expected[f'grad_norm/{name}'] = np.float64(norm)
    expected = {
        name: value
        for name, value in expected.items()
        # Which points are in doubt is a matter of rounding; the losses hardly notice.
        if not name.endswith(('.attention.key.bias', '_mask_points'))
    }

    def view(name, value):
        return fixture_view(description)(name, value) if name in arrays else value

    return expected, view, description
