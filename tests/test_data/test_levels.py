"""Images of more than 8 bits, in files and in arrays."""

import io

import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage
from mmdet_rfdetr.data.images import decode_image
from mmdet_rfdetr.errors import SettingError

RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)
LEVELS = np.round(RAMP * 255).astype(int)


def float_tiff(path, brightest=1.0):
    Image.fromarray((RAMP * brightest).astype(np.float32)).save(path, 'tiff')


def grey_png(path, brightest=4095):
    Image.fromarray((RAMP * brightest).astype(np.uint16)).save(path, 'png')


@pytest.mark.parametrize(
    ('save', 'deep_range'), [(float_tiff, (0, 1)), (grey_png, (0, 4095))]
)
def test_a_range_says_what_becomes_black_and_white(tmp_path, save, deep_range):
    """Without one, the upper 8 of 16 bits count, and floats are levels."""
    path = str(tmp_path / 'a.jpg')
    for brightest in (deep_range[1], 255 if save is float_tiff else 65535):
        save(path, brightest)
        is_default = brightest != deep_range[1]
        load = RFDETRLoadImage(deep_range=None if is_default else deep_range)
        blue = load(path)['img'][..., 0].astype(int)
        np.testing.assert_allclose(blue, LEVELS, atol=1)
        assert is_default or RFDETRLoadImage()(path)['img'].max() < 16


COLOURS = np.random.RandomState(0).randint(256, size=(6, 8, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ('array', 'mode'),
    [
        (COLOURS[..., 0], 'L'),
        (COLOURS[..., :1], 'L'),
        (COLOURS[..., :3], 'RGB'),
        (COLOURS, 'RGBA'),
        (COLOURS[..., 0].astype(np.uint16) * 250, 'I;16'),
        (COLOURS[..., 0].astype(np.float32) * 0.9, 'F'),
        (COLOURS[..., 0] > 99, '1'),
        (COLOURS[..., :3].astype(np.int64), 'RGB'),
    ],
)
def test_arrays_have_the_pixels_of_files(array, mode):
    pixels = array[..., 0] if array.shape[2:] == (1,) else array
    if pixels.dtype == np.int64:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 3:  # from BGR
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    assert image.mode == mode
    buffer = io.BytesIO()
    image.save(buffer, 'tiff')
    expected = decode_image(buffer.getvalue())
    results = RFDETRLoadImage()(dict(img=array))
    np.testing.assert_array_equal(results['img'], expected)
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (6, 8)


@pytest.mark.parametrize(
    ('image', 'what'),
    [
        (np.zeros((0, 0, 3), np.uint8), r'shape \(0, 0, 3\)'),
        (np.zeros((3, 48, 64), np.uint8), r'shape \(3, 48, 64\)'),
        (np.zeros(5, np.uint8), r'shape \(5,\)'),
        (np.full((4, 4), 4000), 'int64 has to hold whole numbers of 0 to 255'),
        (np.full((4, 4), 'text'), 'U4 has to hold'),
        (None, 'got None'),
        ([[1, 2], [3, 4]], 'path or an array'),
    ],
)
def test_what_is_no_image_is_named(image, what):
    with pytest.raises(SettingError, match=what):
        RFDETRLoadImage()(dict(img=image))


def test_a_range_is_any_pair_and_nothing_else():
    pair = np.array([0, 4095])
    pixels = RFDETRLoadImage(deep_range=pair)((RAMP * 4095).astype(np.uint16))['img']
    assert pixels.max() == 255
    for wrong in ((), False, (4095, 0), (0, float('nan'))):
        with pytest.raises(SettingError, match='a pair of values'):
            RFDETRLoadImage(deep_range=wrong)
