"""Transforms, alone and in mmdet's pipeline, against the official package."""

import numpy as np
import pytest
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image

from mmdet_rfdetr.data.sizes import multi_scale_sizes
from mmdet_rfdetr.data.transforms import (
    RFDETRRandomSquareCrop,
    RFDETRResize,
    size_by_short_side,
)
from tests.fixtures import load_json, load_pair, needs_fixtures, rule, strided

PREPROCESSOR = dict(
    type='DetDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
SIZES = dict(down=(601, 500), up=(97, 141))
META = ('img_shape', 'ori_shape', 'scale_factor')


def image(name):
    """The picture that the fixtures were made from, RGB."""
    return rule().uint8_image(f'prep/{name}', 11, *SIZES[name])


def run_pipeline(rgb, folder, resize, instances=(), load=None, **annotations):
    """Push a file through mmdet's pipeline and preprocessor."""
    path = folder / 'image.png'
    Image.fromarray(rgb).save(path)
    transforms = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, **annotations),
        resize,
        dict(type='PackDetInputs', meta_keys=META),
    ]
    data = Compose([TRANSFORMS.build(transform) for transform in transforms])(
        dict(img_path=str(path), instances=list(instances))
    )
    data = MODELS.build(PREPROCESSOR)(pseudo_collate([data]))
    return data['inputs'][0], data['data_samples'][0]


def assert_equals_fixture(tensor, key, pair, atol=5e-6):
    arrays, description = pair
    facts = description[key]
    assert list(tensor.shape) == facts['shape']
    np.testing.assert_allclose(
        strided(tensor, facts['stride']), arrays[key], atol=atol, err_msg=key
    )
    assert float(tensor.double().mean()) == pytest.approx(facts['mean'], abs=1e-6)


@needs_fixtures
@pytest.mark.parametrize('name', ['down', 'up'])
def test_validation_pixels_equal_the_official_ones(name, tmp_path):
    resize = dict(type='RFDETRResize', image_size=384)
    inputs, _ = run_pipeline(image(name), tmp_path, resize)
    assert_equals_fixture(inputs, f'{name}_val_384', load_pair('preprocess'))


@needs_fixtures
@pytest.mark.parametrize('size', [384, (320, 448)])
@pytest.mark.parametrize('name', ['down', 'up'])
def test_predict_pixels_equal_the_official_ones(name, size, tmp_path):
    resize = dict(type='RFDETRResize', sizes=[size], antialias=False)
    inputs, _ = run_pipeline(image(name), tmp_path, resize)
    key = f'{name}_predict_' + ('384' if size == 384 else '320x448')
    assert_equals_fixture(inputs, key, load_pair('preprocess'))


@pytest.mark.parametrize(
    'size, short_side, max_long_side, expected',
    [
        ((480, 640), 576, 1333, (576, 768)),
        ((640, 480), 576, 1333, (768, 576)),
        ((100, 1000), 576, 1333, (133, 1330)),
        ((1000, 100), 576, None, (5760, 576)),
        ((333, 500), 400, None, (400, 601)),
        ((300, 300), 384, 1333, (384, 384)),
        ((1, 5000), 384, 1333, (1, 1333)),
        ((100_000, 1), 384, 7680, (7680, 1)),
    ],
)
def test_size_by_short_side(size, short_side, max_long_side, expected):
    assert size_by_short_side(size, short_side, max_long_side) == expected


def results(height, width, boxes, masks=None):
    """What LoadImageFromFile and LoadAnnotations hand on; pixels are unique."""
    pixels = np.arange(height * width * 3, dtype=np.int64) % 251
    instances = [
        dict(bbox=list(box), bbox_label=label, ignore_flag=0)
        for label, box in enumerate(boxes)
    ]
    loaded = TRANSFORMS.build(dict(type='LoadAnnotations', with_bbox=True))(
        dict(instances=instances, img_shape=(height, width))
    )
    if masks is not None:
        loaded['gt_masks'] = BitmapMasks(masks, height, width)
    return dict(loaded, img=pixels.reshape(height, width, 3).astype(np.uint8))


def test_resize_draws_each_size():
    resize = RFDETRResize(image_size=64, size_divisor=16, offsets=(-1, 0, 1))
    np.random.seed(0)
    drawn = {resize(results(20, 30, []))['img'].shape[0] for _ in range(50)}
    assert drawn == {48, 64, 80}


def test_resize_keeps_an_image_without_objects():
    after = RFDETRResize(image_size=32)(results(20, 30, []))
    assert after['gt_bboxes'].tensor.shape == (0, 4)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({}, 'either image_size, maybe with offsets, or sizes'),
        (dict(image_size=64, sizes=(64,)), 'either image_size'),
        (dict(sizes=(64,), offsets=(0,)), 'either image_size'),
        (dict(image_size=64, offsets=(0,)), 'needs size_divisor'),
        (dict(image_size=64, max_long_side=100), 'keep_ratio=False'),
        (dict(sizes=[(32, 64)], keep_ratio=True), r'shorter side.*\[\(32, 64\)\]'),
        (dict(image_size=32, keep_ratio=True, max_long_side=0), 'number of pixels'),
    ],
)
def test_resize_refuses_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        RFDETRResize(**arguments)


@pytest.mark.parametrize('kind', [np.float32, np.float64, np.int64, np.int16])
def test_levels_of_other_types_are_rounded_and_clipped(kind):
    before = results(20, 30, [])
    expected = RFDETRResize(image_size=32)(dict(before))['img']
    assert expected.dtype == np.uint8
    odd = before['img'].astype(kind)
    if odd.dtype.kind == 'f':
        odd[::2] += 0.4
        odd[1::2] -= 0.4
    found = RFDETRResize(image_size=32)(dict(before, img=odd))['img']
    np.testing.assert_array_equal(found, expected)
    far = np.where(before['img'] > 99, kind(700), kind(-300))
    expected = np.where(before['img'] > 99, 255, 0).astype(np.uint8)
    expected = RFDETRResize(image_size=32)(dict(before, img=expected))['img']
    found = RFDETRResize(image_size=32)(dict(before, img=far))['img']
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('before', [lambda x: x[:, ::-1], lambda x: x[..., 0]])
def test_images_are_sampled_however_they_lie_in_memory(before):
    image = before(results(20, 30, [])['img'])
    resize = RFDETRResize(image_size=32, antialias=False)
    found = resize(dict(img=image))['img']
    expected = resize(dict(img=np.atleast_3d(image).copy()))['img']
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (32, 32, np.atleast_3d(image).shape[2])


def test_a_line_of_pixels_stays_small():
    resize = RFDETRResize(image_size=600, keep_ratio=True)
    for height, width in ((1, 2000), (2000, 1)):
        shape = resize(results(height, width, [(0, 0, width, height)]))['img_shape']
        assert sorted(shape) == [6, 12000]
    # No photograph is so long that it notices.
    assert resize(results(10, 190, []))['img_shape'] == (600, 11400)


def test_crop_clips_boxes_and_drops_what_is_outside(monkeypatch):
    draws = iter([40, 10, 20])  # side, top, left
    monkeypatch.setattr(np.random, 'randint', lambda *args: next(draws))
    boxes = [(30, 20, 40, 30), (0, 0, 25, 15), (0, 0, 20, 60), (59, 49, 90, 70)]
    boxes.append((20, 0, 60, 10))
    masks = np.zeros((5, 70, 90), np.uint8)
    masks[0, 20:30, 30:40] = 1
    before = results(70, 90, boxes, masks)
    pixels = before['img'][10:50, 20:60].copy()
    after = RFDETRRandomSquareCrop(min_side=30, max_side=50)(before)
    np.testing.assert_array_equal(after['img'], pixels)
    assert after['img_shape'] == (40, 40)
    # The third box ends where the crop begins, and so does the last.
    assert after['gt_bboxes'].tensor.tolist() == [
        [10, 10, 20, 20],
        [0, 0, 5, 5],
        [39, 39, 40, 40],
    ]
    assert after['gt_bboxes_labels'].tolist() == [0, 1, 3]
    assert len(after['gt_ignore_flags']) == 3
    assert after['gt_masks'].masks.shape == (3, 40, 40)
    assert after['gt_masks'].masks[0, 10:20, 10:20].all()
    assert after['gt_masks'].masks.sum() == 100


@pytest.mark.parametrize('shape', [(700, 650), (400, 610), (300, 500), (390, 390)])
def test_crop_draws_every_side_and_place(shape):
    crop = RFDETRRandomSquareCrop(min_side=384, max_side=600)
    largest = min(600, *shape)
    np.random.seed(0)
    places = [crop.draw(shape) for _ in range(500)]
    lefts, tops, sides = map(set, zip(*places, strict=True))
    assert min(lefts) == min(tops) == 0
    for size, starts in zip(shape, (tops, lefts), strict=True):
        assert max(starts) <= size - min(sides)
    for left, top, side in places:
        assert left + side <= shape[1] and top + side <= shape[0]
    assert min(sides) >= min(384, largest)
    assert max(sides) <= largest
    if largest == 600:
        assert min(sides) < 390 and max(sides) > 595
    elif largest <= 384:
        assert sides == {largest}


def test_crop_refuses_sides_in_the_wrong_order():
    with pytest.raises(ValueError, match='min_side=5, max_side=4'):
        RFDETRRandomSquareCrop(min_side=5, max_side=4)


@needs_fixtures
@pytest.mark.parametrize('offsets', ['plain', 'expanded'])
def test_multi_scale_sizes_equal_the_official_ones(offsets):
    steps = dict(plain=range(-3, 5), expanded=range(-5, 6))[offsets]
    for name, facts in load_json('schedules')['multi_scale'].items():
        divisor = facts['patch_size'] * facts['num_windows']
        sizes = multi_scale_sizes(facts['resolution'], divisor, steps)
        assert sizes == facts[offsets], name


def test_multi_scale_without_any_size_says_so():
    with pytest.raises(ValueError, match='image_size=32 with size_divisor=32'):
        multi_scale_sizes(32, 32, (-1, 0))


def test_images_of_any_shape_are_padded_to_a_legal_size(tmp_path):
    """The non-square mode: shorter side fixed, zeros at the right and the bottom."""
    resize = dict(
        type='RFDETRResize', image_size=96, keep_ratio=True, max_long_side=133
    )
    pipeline = Compose(
        [
            TRANSFORMS.build(transform)
            for transform in (
                dict(type='LoadImageFromFile'),
                resize,
                dict(type='PackDetInputs', meta_keys=META),
            )
        ]
    )
    batch = []
    for name, size in dict(wide=(60, 80), high=(200, 100)).items():
        path = tmp_path / f'{name}.png'
        Image.fromarray(np.full((*size, 3), 255, np.uint8)).save(path)
        batch.append(pipeline(dict(img_path=str(path))))
    data = MODELS.build(PREPROCESSOR)(pseudo_collate(batch))
    assert data['inputs'].shape == (2, 3, 160, 128)
    shapes = [sample.img_shape for sample in data['data_samples']]
    assert shapes == [(96, 128), (132, 66)]
    for image, (height, width) in zip(data['inputs'], shapes, strict=True):
        assert image[:, :height, :width].min() > 1
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()
    assert data['data_samples'][0].batch_input_shape == (160, 128)


@pytest.mark.parametrize('channels', (1, 2, 4, 5))
def test_channels_that_are_no_colours_are_resized_one_by_one(channels):
    noise = np.random.default_rng(0).integers(0, 256, (97, 141, channels), np.uint8)
    planes = [np.ascontiguousarray(noise[:, :, index]) for index in range(channels)]
    planes[-1] = np.zeros_like(planes[-1])  # as opacity it would hide the others
    resize = RFDETRResize(image_size=64)
    found = resize(dict(img=np.stack(planes, axis=2), img_shape=(97, 141)))['img']
    assert found.shape == (64, 64, channels)
    for index, plane in enumerate(planes):
        alone = resize(dict(img=np.stack([plane] * 3, axis=2), img_shape=plane.shape))
        np.testing.assert_array_equal(found[:, :, index], alone['img'][:, :, 0])
