"""Masks that follow the resizing of their image."""

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS

from mmdet_rfdetr.segmentation.resizing import ResizeWithMasks
from tests.fixtures import load_pair, needs_fixtures
from tests.test_data.test_transforms import image, results, run_pipeline


@needs_fixtures
# pycocotools, when it decodes a mask
@pytest.mark.filterwarnings('ignore:__array__ implementation')
@pytest.mark.parametrize('name', ['down', 'up'])
def test_validation_targets_equal_the_official_ones(name, tmp_path):
    arrays, description = load_pair('preprocess')
    boxes = description[f'{name}_input_boxes_xyxy']
    labels = arrays[f'{name}_val_target_labels'].tolist()
    instances = [
        dict(bbox=box, bbox_label=label, ignore_flag=0, mask=[polygon(box)])
        for box, label in zip(boxes, labels, strict=True)
    ]
    _, sample = run_pipeline(
        image(name),
        tmp_path,
        dict(type='RFDETRResize', image_size=384),
        instances,
        with_mask=True,
    )
    xyxy = sample.gt_instances.bboxes
    height, width = sample.img_shape
    assert (height, width) == tuple(arrays[f'{name}_val_target_size'])
    assert sample.ori_shape == tuple(arrays[f'{name}_val_target_orig_size'])
    areas = (xyxy[:, 2:] - xyxy[:, :2]).prod(1)
    np.testing.assert_allclose(areas, arrays[f'{name}_val_target_area'], rtol=1e-4)
    cxcywh = torch.cat([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], 1)
    cxcywh /= torch.tensor([width, height, width, height])
    np.testing.assert_allclose(cxcywh, arrays[f'{name}_val_target_boxes'], atol=1e-6)
    assert sample.gt_instances.labels.tolist() == labels
    masks = np.unpackbits(arrays[f'{name}_val_target_masks'])
    masks = masks.reshape(description[f'{name}_val_target_masks_shape'])
    # The polygons were not stored; the third was not its box, all of one pixel.
    np.testing.assert_array_equal(sample.gt_instances.masks.masks[:2], masks[:2])


def polygon(box):
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def test_keep_ratio_scales_boxes_and_masks_with_the_image():
    masks = np.zeros((1, 60, 80), np.uint8)
    masks[0, 15:30, 20:40] = 1
    before = results(60, 80, [(20, 15, 40, 30)], masks)
    resize = ResizeWithMasks(image_size=120, keep_ratio=True, max_long_side=150)
    after = resize(before)
    assert after['img'].shape == (112, 149, 3)
    assert after['img_shape'] == (112, 149)
    assert after['scale_factor'] == (149 / 80, 112 / 60)
    expected = torch.tensor([[20, 15, 40, 30]]) * torch.tensor([149 / 80, 112 / 60] * 2)
    torch.testing.assert_close(after['gt_bboxes'].tensor, expected)
    assert after['gt_masks'].masks.shape == (1, 112, 149)
    area = 300 * 149 / 80 * 112 / 60
    assert after['gt_masks'].masks.sum() == pytest.approx(area, rel=0.05)


@pytest.mark.parametrize('size', [(244, 69), (69, 244), (200, 200)])
def test_masks_are_resized_to_the_pixels_of_the_official_package(size):
    """It takes the nearest pixel by positions that float32 rounds."""
    shape = (164, 70)
    masks = np.random.default_rng(0).integers(0, 2, (3, *shape), np.uint8)
    masks = masks[:, :, ::-1]  # as after a flip
    before = results(*shape, [(0, 0, 10, 10)] * 3, masks)
    after = TRANSFORMS.build(dict(type='RFDETRResize', sizes=[size]))(before)
    rows, columns = (
        (np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(int)
        for old, new in zip(shape, size, strict=True)
    )
    np.testing.assert_array_equal(
        after['gt_masks'].masks, masks[:, rows[:, None], columns]
    )
