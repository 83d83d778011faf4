"""The numbers of the official package on small models, stage by stage.

These tests need nothing but the repository; see :mod:`tests.golden`.
"""

import pytest
import torch

from mmdet_rfdetr.matching import Stages
from tests import golden, parity


@pytest.fixture(scope='module', params=sorted(golden.CASES.keys() - golden.TASKS))
def name(request):
    return request.param


def prepare(name):
    """Case, model, images and samples."""
    case = golden.CASES[name]
    config = parity.case_config(case)
    model = parity.rule_model(config, case['seed'])
    return case, model, *parity.case_batch(case, config)


def official_numbers(name, model, part):
    """Kept official numbers of a part, and the view of ours that fits them."""
    numbers, shapes = (
        {
            key.removeprefix(f'{part}/'): value
            for key, value in found.items()
            if key.startswith(f'{part}/') and not key.endswith('.attention.key.bias')
        }
        for found in golden.load(name)
    )

    def view(key, value):
        assert value.shape == shapes[key], (
            f'{key} is the first stage that diverges: its shape is {value.shape} and '
            f'should be {shapes[key]}'
        )
        return golden.thin(f'{part}/{key}', value)

    return parity.without_unused_blocks(numbers, model), view


def test_eval_stages(name):
    case, model, images, samples = prepare(name)
    stages = parity.eval_stages(model, images, samples)
    expected, view = official_numbers(name, model, 'eval')
    detections = {
        key: expected.pop(key) for key in list(expected) if key.startswith('image')
    }
    parity.assert_stages_agree(stages, expected, parity.SMALL_TOLERANCES, view)

    last = Stages(
        [torch.from_numpy(stages['pred_logits'])],
        [torch.from_numpy(stages['pred_boxes'])],
    )
    if 'pred_keypoints' in stages:
        points = torch.from_numpy(stages['pred_keypoints'])
        last = last.with_task('keypoint_head', [points])
    results = model.bbox_head.predict_by_feat(
        last,
        batch_img_metas=[sample.metainfo for sample in samples],
    )
    for image, result in enumerate(results):
        parity.assert_detections_agree(
            f'image{image}',
            dict(result.items()),
            dict(
                scores=detections[f'image{image}_scores'],
                labels=detections[f'image{image}_labels'],
                bboxes=detections[f'image{image}_boxes'].reshape(-1, 4),
            ),
            box_margin=2e-5 * max(case['batch_size']),
        )


def test_train_stages(name):
    _, *prepared = prepare(name)
    stages = parity.train_stages(*prepared)
    expected, view = official_numbers(name, prepared[0], 'train')
    parity.assert_stages_agree(stages, expected, parity.TRAIN_TOLERANCES, view)
    parity.assert_few_gradients_jump(stages, expected, view)


def test_the_cases_reach_every_parameter(name):
    """A parameter without an official gradient would be compared with nothing."""
    _, model, _, _ = prepare(name)
    ours = parity.official_entries(model.state_dict())
    expected, _ = official_numbers(name, model, 'train')
    compared = {
        key.removeprefix('grad/') for key in expected if key.startswith('grad/')
    }
    others = {key for key in ours if not key.endswith('.attention.key.bias')}
    assert others - compared == {parity.MASK_TOKEN}
