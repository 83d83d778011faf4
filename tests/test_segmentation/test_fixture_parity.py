"""Seg Nano compared with the official package, stage by stage.

And what that makes of predicted masks, and where it draws points.
"""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.matching import Stages
from mmdet_rfdetr.segmentation.point_sampling import MaskFeatures
from tests import parity
from tests.fixtures import load_json, load_pair, needs_fixtures, rule
from tests.test_models.test_fixture_parity import (
    check_train_stages,
    evaluate,
    test_eval_stages,  # noqa: F401
)
from tests.test_segmentation.case import tiny_config

pytestmark = needs_fixtures


@pytest.fixture(scope='module')
def model(evaluated):
    return evaluated[1]


@pytest.fixture(scope='module')
def evaluated():
    return evaluate('seg_nano')


@pytest.mark.long
def test_train_stages():
    check_train_stages('seg_nano')


@pytest.mark.parametrize('size', [0, 1])
def test_detections(model, size):
    config = load_json('seg_nano/config')
    arrays, description = load_pair('seg_nano/detections')
    sizes = description['target_sizes'][size]
    inputs = config['eval_input']
    samples = parity.make_samples(inputs, inputs[0])
    for sample, original in zip(samples, sizes, strict=True):
        parity.set_original_size(sample, original)
    images = rule().image_batch(config['case_seed'], len(inputs), *inputs[0])
    with torch.no_grad():
        results = model(torch.from_numpy(images), samples, 'predict')
    for image, sample in enumerate(results):
        found, prefix = sample.pred_instances, f'size{size}_image{image}'
        np.testing.assert_array_equal(found.labels, arrays[f'{prefix}_labels'])
        np.testing.assert_allclose(found.scores, arrays[f'{prefix}_scores'], atol=1e-5)
        np.testing.assert_allclose(
            found.bboxes, arrays[f'{prefix}_boxes'], rtol=0, atol=2e-5 * max(sizes[0])
        )
        assert found.masks.dtype == torch.bool
        assert found.masks.shape == (100, *sizes[image])
        pixels = np.array(description[f'{prefix}_mask_pixels'])
        difference = np.abs(found.masks.sum((1, 2)).numpy() - pixels)
        # Rounding decides a pixel here and there.
        assert difference.max() <= 3


def test_masks_follow_the_detections_through_ties():
    arrays, description = load_pair('postprocess')
    make_noise = rule().noise
    logits = np.round(make_noise('post/logits', 12, (2, 60, 91)) * 16) / 16 - 1
    masks = make_noise('post/masks', 12, (2, 60, 24, 24)).astype(np.float32)
    sizes = description['target_sizes'][1]
    config = tiny_config()
    config['bbox_head'].update(num_classes=91)
    config['test_cfg'].update(max_per_img=30)
    samples = parity.make_samples([(96, 96)] * 2, (96, 96))
    for sample, size in zip(samples, sizes, strict=True):
        parity.set_original_size(sample, size)
    # Each query picks one channel: its own mask.
    made = MaskFeatures(
        torch.from_numpy(masks), torch.eye(60).expand(2, -1, -1), torch.zeros(1)
    )
    results = MODELS.build(config).bbox_head.predict_by_feat(
        Stages(
            [torch.from_numpy(logits.astype(np.float32))],
            [torch.from_numpy(arrays['input_boxes'])],
        ).with_task('mask_head', [made]),
        batch_img_metas=[sample.metainfo for sample in samples],
    )
    for image, found in enumerate(results):
        prefix = f'seg_size1_image{image}'
        np.testing.assert_array_equal(found.labels, arrays[f'{prefix}_labels'])
        shape = (30, *sizes[image])
        packed = arrays[f'{prefix}_masks']
        expected = np.unpackbits(packed, count=np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(found.masks, expected.astype(bool))


def test_points_are_drawn_in_official_order_and_number():
    """So the same seed gives both programs the same points."""
    config = load_json('seg_nano/config')
    drawn = []

    def points(name, shape, device):
        drawn.append(dict(tag=f'rand/{name}', shape=list(shape)))
        return torch.rand(shape, device=device)

    # The points depend on masks and objects, not on what the network makes of them.
    sizes = dict(config['model'], **config['train_overrides'], group_detr=13)
    sizes.update(hidden_dim=32, sa_nheads=2, ca_nheads=2, dim_feedforward=32)
    sizes.update(vit=dict(hidden_size=24, num_attention_heads=2))
    model = MODELS.build(parity.model_config(sizes, config['num_logits'], points))
    inputs = config['train_input']
    seed = config['train_case_seed']
    objects = rule().targets(
        seed, config['target_counts'], config['num_logits'], inputs[0]
    )
    images = rule().image_batch(seed, len(inputs), *inputs[0])
    samples = parity.make_samples(inputs, inputs[0], objects)
    model.train()(torch.from_numpy(images), samples, 'loss')
    expected = load_json('seg_nano/train')['random_draws']
    assert drawn == [{key: draw[key] for key in ('tag', 'shape')} for draw in expected]
