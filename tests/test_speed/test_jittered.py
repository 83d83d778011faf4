"""Loading, scale jitter, flip and resize in one step, against one after the other."""

import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from PIL import Image

from mmdet_rfdetr.data import RFDETRResize
from mmdet_rfdetr.data.images import ImageSource
from mmdet_rfdetr.errors import BadImageError
from mmdet_rfdetr.speed.jittered import RFDETRLoadJittered
from tests.test_data.test_loading import encoded, ramp, turned

BOXES = np.array([[10, 20, 200, 160], [180, 100, 420, 260], [0, 0, 5, 5]], 'float32')
SHAPE = (300, 440)


def results(folder, data=None, **info):
    path = folder / 'image.png'
    path.write_bytes(data or encoded(ramp(*SHAPE), 'png'))
    return dict(
        dict(
            img_path=str(path),
            height=SHAPE[0],
            width=SHAPE[1],
            gt_bboxes=BOXES.copy(),
            gt_bboxes_labels=np.array([4, 5, 6]),
            gt_ignore_flags=np.array([False, True, False]),
        ),
        **info,
    )


def load(size=96, **settings):
    return RFDETRLoadJittered(
        size, **dict(dict(jitter_prob=0, flip_prob=0), **settings)
    )


def with_region(region, size=96):
    """A loader that always takes this region."""
    loader = load(size)
    loader.draw_region = lambda shape: region
    return loader


def test_the_whole_image_is_resized_as_ever(tmp_path):
    found = load()(results(tmp_path))
    pixels = np.asarray(ramp(*SHAPE))[:, :, ::-1].copy()
    expected = RFDETRResize(image_size=96)(
        dict(img=pixels, img_shape=SHAPE, gt_bboxes=BOXES.copy())
    )
    difference = np.abs(found['img'].astype(int) - expected['img'])
    assert difference.max() <= 1
    np.testing.assert_allclose(found['gt_bboxes'], expected['gt_bboxes'], atol=1e-4)
    assert found['scale_factor'] == pytest.approx(expected['scale_factor'])
    assert found['img_shape'] == (96, 96)
    assert found['ori_shape'] == SHAPE
    assert found['gt_bboxes_labels'].tolist() == [4, 5, 6]


def test_noise_is_filtered_as_by_pillow(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), 'png')
    expected = Image.fromarray(pixels).resize((96, 96), Image.BILINEAR)
    found = load()(results(tmp_path, data))['img']
    difference = np.abs(found.astype(int) - np.asarray(expected)[:, :, ::-1])
    assert difference.max() <= 1


@pytest.mark.parametrize('flip', [0, 1])
def test_transforms_that_work_in_place_may_follow(tmp_path, flip):
    found = load(flip_prob=flip)(results(tmp_path))
    before = found['img'].copy()
    np.random.seed(0)
    after = TRANSFORMS.build(dict(type='YOLOXHSVRandomAug'))(found)['img']
    assert 1 < np.abs(after.astype(int) - before).mean() < 60  # colours, no other image


def test_a_crop_is_that_of_resizing_twice(tmp_path):
    pixels = np.asarray(ramp(*SHAPE))[:, :, ::-1].copy()
    step = dict(img=pixels, img_shape=SHAPE, gt_bboxes=BOXES.copy())
    step = RFDETRResize(sizes=(400,), keep_ratio=True)(step)
    top, left, side = 40, 120, 160
    step['img'] = step['img'][top : top + side, left : left + side].copy()
    step['gt_bboxes'] -= np.array([left, top, left, top])
    step['gt_bboxes'] = step['gt_bboxes'].clip(0, side)
    step = RFDETRResize(image_size=96)(step)

    region = [edge * 0.75 for edge in (left, top, left + side, top + side)]
    found = with_region(tuple(region))(results(tmp_path))
    difference = np.abs(found['img'].astype(int) - step['img'])
    assert difference.max() <= 2
    # Two of three boxes are in the crop, at least in part.
    np.testing.assert_allclose(found['gt_bboxes'], step['gt_bboxes'][:2], atol=0.5)
    assert found['gt_bboxes_labels'].tolist() == [4, 5]
    assert found['gt_ignore_flags'].tolist() == [False, True]


@pytest.mark.parametrize('shape', [(900, 1200), (1200, 900), (500, 333), (90, 1000)])
def test_regions_are_drawn_like_the_official_crops(shape):
    np.random.seed(0)
    height, width = shape
    loader = load(jitter_prob=0.5)
    whole, sides, offsets = 0, [], []
    for _ in range(600):
        left, top, right, bottom = loader.draw_region(shape)
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        if (left, top, right, bottom) == (0, 0, width, height):
            whole += 1
            continue
        # Square after resizing with the aspect ratio kept, to rounding.
        assert (right - left) / (bottom - top) == pytest.approx(1, abs=0.02)
        sides.append((bottom - top) / min(shape))
        offsets.append((left + right) / 2 / width)
    assert 240 < whole < 360
    # 384 of 600, and 400 to 600 of as much.
    assert min(sides) == pytest.approx(384 / 600, abs=0.02)
    assert max(sides) == pytest.approx(1, abs=0.02)
    assert 0.4 < np.mean(offsets) < 0.6


@pytest.mark.parametrize(
    'region, size, reduction',
    [
        ((0, 0, 800, 640), 320, 2),
        ((0, 0, 800, 640), 321, 1),
        ((0, 0, 800, 640), 80, 8),
        ((100, 100, 500, 500), 100, 4),
        ((100, 100, 500, 500), 201, 1),
    ],
)
def test_no_more_is_decoded_than_the_resize_needs(
    tmp_path, monkeypatch, region, size, reduction
):
    decoded = []
    decode = ImageSource.decode
    monkeypatch.setattr(
        ImageSource, 'decode', lambda self: decoded.append(decode(self)) or decoded[0]
    )
    data = encoded(ramp(640, 800), quality=95)
    info = results(tmp_path, data, height=640, width=800)
    found = with_region(region, size)(info)
    assert decoded[0].size == (800 // reduction, 640 // reduction)
    part = ramp(640, 800).crop(region).resize((size, size), Image.BILINEAR)
    difference = np.abs(found['img'].astype(int) - np.asarray(part)[:, :, ::-1])
    assert difference.mean() < 2
    scale = size / (region[2] - region[0]), size / (region[3] - region[1])
    assert found['scale_factor'] == pytest.approx(scale, rel=0.01)
    assert found['ori_shape'] == (640, 800)


def test_turned_photographs_at_a_fraction(tmp_path):
    data = encoded(ramp(320, 480), exif=turned(6))
    shown = results(tmp_path, data, height=480, width=320)
    stored = results(tmp_path, data, height=320, width=480)
    found = [load(80)(info)['img'] for info in (shown, stored)]
    assert np.abs(np.rot90(found[1], -1).astype(int) - found[0]).max() <= 2


def test_flips_turn_image_and_boxes(tmp_path):
    plain = load()(results(tmp_path))
    flipped = load(flip_prob=1)(results(tmp_path))
    np.testing.assert_array_equal(flipped['img'], plain['img'][:, ::-1])
    x1, y1, x2, y2 = plain['gt_bboxes'].T
    np.testing.assert_allclose(
        flipped['gt_bboxes'].T, [96 - x2, y1, 96 - x1, y2], atol=1e-4
    )
    assert (plain['flip'], flipped['flip']) == (False, True)
    assert flipped['flip_direction'] == 'horizontal'


def test_sizes_of_multi_scale(tmp_path):
    largest = load(64, size_divisor=16, offsets=(5,))(results(tmp_path))
    assert largest['img'].shape == (144, 144, 3)
    drawn = {
        load(64, size_divisor=16, offsets=(-1, 0, 1))(results(tmp_path))['img_shape']
        for _ in range(40)
    }
    assert drawn == {(48, 48), (64, 64), (80, 80)}


def test_images_without_annotations(tmp_path):
    info = results(tmp_path)
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'height', 'width'):
        del info[key]
    assert load()(info)['img'].shape == (96, 96, 3)


def test_annotations_that_would_not_follow_are_refused(tmp_path):
    late = results(tmp_path, instances=[dict(bbox=[0, 0, 5, 5])])
    del late['gt_bboxes']
    with pytest.raises(ValueError, match='has to come after LoadAnnotations'):
        load()(late)
    with pytest.raises(ValueError, match='does not move masks'):
        load()(results(tmp_path, gt_masks=[]))


def test_broken_files_are_reported_as_ever(tmp_path):
    data = encoded(ramp(*SHAPE))
    with pytest.raises(BadImageError):
        load()(results(tmp_path, data[: len(data) // 2]))
    with pytest.raises(BadImageError):
        load()(results(tmp_path, img_path=str(tmp_path / 'absent.jpg')))


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match='offsets.* needs size_divisor'):
        load(offsets=(5,))
    with pytest.raises(ValueError, match='min_side=600, max_side=384'):
        load(crop_sides=(600, 384))


def test_detection_configs_use_it_and_masks_do_not():
    kinds = {
        name: [
            step.type for step in Config.fromfile(f'configs/{name}.py').train_pipeline
        ]
        for name in ('rfdetr_nano_coco', 'rfdetr-seg_nano_coco')
    }
    assert 'RFDETRLoadJittered' in kinds['rfdetr_nano_coco']
    assert 'RandomFlip' not in kinds['rfdetr_nano_coco']
    assert 'RFDETRLoadJittered' not in kinds['rfdetr-seg_nano_coco']
    assert 'RFDETRRandomSquareCrop' in str(
        Config.fromfile('configs/rfdetr-seg_nano_coco.py').train_pipeline
    )


@pytest.mark.parametrize('shape', ((1, 50), (50, 1)))
def test_regions_thinner_than_a_pixel(tmp_path, shape):
    data = encoded(ramp(*shape), 'png')
    height, width = shape
    for start in (0, 0.2, 0.4):
        region = (start * width, start * height, width * (start + 0.4), height * 0.99)
        region = (min(region[0], width - 0.3), *region[1:])
        found = with_region(region)(results(tmp_path, data, height=height, width=width))
        assert found['img'].shape == (96, 96, 3)


@pytest.mark.parametrize('shape', ((1, 50), (50, 1)))
def test_a_thin_region_at_the_far_edge_holds_pixels_of_the_image(tmp_path, shape):
    white = np.full((*shape, 3), 255, np.uint8)
    data = encoded(Image.fromarray(white), 'png')
    height, width = shape
    region = (width - 0.4, height - 0.4, width, height)
    found = with_region(region)(results(tmp_path, data, height=height, width=width))
    assert found['img'].min() == 255
