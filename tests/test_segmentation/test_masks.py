"""Predicted and true masks, and reading them at points."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from mmdet_rfdetr.segmentation.point_sampling import (
    MaskFeatures,
    TargetMasks,
    drawing_order,
)

CPU = torch.device('cpu')


def features(batch=2, queries=5, width=4, size=(6, 8)):
    torch.manual_seed(0)
    return MaskFeatures(
        torch.randn(batch, width, *size),
        torch.randn(batch, queries, width),
        torch.randn(1),
    )


def expected_masks(masks):
    product = torch.einsum(
        'bchw,bnc->bnhw', masks.spatial_features, masks.query_features
    )
    return product + masks.bias


def targets_of(masks, **meta):
    """TargetMasks of one image."""
    instances = InstanceData(labels=torch.zeros(len(masks)), masks=masks)
    return TargetMasks.from_instances([instances], [meta], CPU)


def test_every_view_of_predicted_masks_agrees():
    masks = features()
    expected = expected_masks(masks)
    torch.testing.assert_close(masks.of_all(), expected)
    torch.testing.assert_close(
        masks.of_queries(1, torch.tensor([3, 3, 0])), expected[1, [3, 3, 0]]
    )
    pairs = masks.of_pairs(torch.tensor([4, 1, 2]), counts=(1, 2))
    torch.testing.assert_close(
        pairs, torch.stack([expected[0, 4], expected[1, 1], expected[1, 2]])
    )


def test_masks_at_points_are_samples_of_the_whole_masks():
    masks = features()
    points = torch.rand(1, 50, 2)
    sampled = F.grid_sample(
        expected_masks(masks),
        (2 * points - 1).expand(2, -1, -1)[:, :, None],
        padding_mode='border',
        align_corners=False,
    )
    torch.testing.assert_close(masks.at_points(points), sampled[..., 0])


@pytest.mark.parametrize('low', [torch.bfloat16, torch.float16])
def test_masks_come_out_in_float32(low):
    masks = MaskFeatures(*(part.to(low) for part in features()))
    masks = MaskFeatures(masks.spatial_features, masks.query_features, torch.ones(1))
    assert masks.of_all().dtype == torch.float32
    assert masks.of_queries(0, torch.arange(2)).dtype == torch.float32
    assert masks.at_points(torch.rand(1, 3, 2)).dtype == torch.float32
    assert {part.dtype for part in masks.as_dict().values()} == {torch.float32}


def test_drawing_order():
    assert drawing_order(4) == [(2, 'final'), (0, 'aux0'), (1, 'aux1'), (3, 'enc')]


def test_targets_are_read_like_nearest_grid_sampling():
    bitmap = np.random.default_rng(0).random((3, 16, 32)) > 0.5
    masks = targets_of(BitmapMasks(bitmap.astype(np.uint8), 16, 32), img_shape=(16, 32))
    # Half of these points lie on the border of two pixels: halves go to the even one.
    halves = torch.cartesian_prod(torch.arange(64) / 64, torch.arange(32) / 32)
    points = torch.cat((halves, torch.rand(500, 2)))[None]
    expected = F.grid_sample(
        torch.from_numpy(bitmap)[:, None].float(),
        (2 * points - 1)[:, :, None].expand(3, -1, -1, -1),
        mode='nearest',
        padding_mode='border',
        align_corners=False,
    )[:, 0, :, 0]
    sampled = masks.sample(points, torch.arange(3))
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(sampled, expected, rtol=0, atol=0)


def test_each_target_can_have_points_of_its_own():
    bitmap = np.zeros((2, 4, 4), np.uint8)
    bitmap[0, :, :2] = 1
    bitmap[1, 2:] = 1
    masks = targets_of(BitmapMasks(bitmap, 4, 4), img_shape=(4, 4))
    points = torch.tensor([[[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.1], [0.1, 0.9]]])
    assert masks.sample(points, torch.tensor([0, 1])).tolist() == [[1, 0], [0, 1]]
    assert masks.sample(points, torch.tensor([1, 0])).tolist() == [[1, 0], [1, 1]]


def test_a_mask_covers_its_image_and_not_the_padding():
    # An image of 40 x 60 in a batch of 80 x 80; the mask was loaded at half the size.
    bitmap = BitmapMasks(np.ones((1, 20, 30), np.uint8), 20, 30)
    masks = targets_of(bitmap, img_shape=(40, 60), batch_input_shape=(80, 80))
    points = torch.tensor([[[0.74, 0.49], [0.76, 0.49], [0.74, 0.51], [0.0, 0.0]]])
    assert masks.sample(points, torch.tensor([0])).tolist() == [[1, 0, 0, 1]]
    # Also if the mask happens to have the size of the batch.
    bitmap = BitmapMasks(np.ones((1, 80, 80), np.uint8), 80, 80)
    masks = targets_of(bitmap, img_shape=(40, 60), batch_input_shape=(80, 80))
    assert masks.sample(points, torch.tensor([0])).tolist() == [[1, 0, 0, 1]]


def test_masks_of_different_sizes_are_joined():
    small = PolygonMasks([[np.array([0.0, 0, 4, 0, 4, 8, 0, 8])]], 8, 8)
    large = torch.zeros(2, 16, 4, dtype=torch.bool)
    large[1] = True
    none = BitmapMasks(np.zeros((0, 5, 5), np.uint8), 5, 5)
    masks = TargetMasks.from_instances(
        [InstanceData(masks=part) for part in (small, none, large)],
        [dict(img_shape=(80, 80))] * 3,
        CPU,
    )
    points = torch.tensor([[[0.25, 0.9], [0.75, 0.9], [0.99, 0.99]]])
    sampled = masks.sample(points, torch.arange(3))
    assert sampled.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 1]]


def test_no_object_at_all():
    none = BitmapMasks(np.zeros((0, 5, 5), np.uint8), 5, 5)
    masks = targets_of(none, img_shape=(5, 5))
    assert masks.sample(torch.rand(1, 7, 2), torch.arange(0)).shape == (0, 7)


def test_missing_masks_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r'cats/1\.jpg has no masks.*RFDETRLoad.*with_mask=True'
    ):
        TargetMasks.from_instances(
            [InstanceData(labels=torch.zeros(1))],
            [dict(img_path='cats/1.jpg', img_shape=(5, 5))],
            CPU,
        )
