"""Images of more than 8 bits, in files and in arrays."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage, loading
from mmdet_rfdetr.data.images import Reading, decode_image
from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.faults.findings import Finding
from mmdet_rfdetr.speed.jittered import RFDETRLoadJittered
from tests.factory import build, write

RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)
LEVELS = np.round(RAMP * 255).astype(int)


def float_tiff(path, brightest=1.0):
    Image.fromarray((RAMP * brightest).astype(np.float32)).save(path, 'tiff')


def grey_png(path, brightest=4095):
    Image.fromarray((RAMP * brightest).astype(np.uint16)).save(path, 'png')


def colour_png(path, brightest=4095):
    pixels = np.stack([RAMP * brightest, RAMP * 0, RAMP[::-1] * brightest], 2)
    path.write_bytes(cv2.imencode('.png', pixels.astype(np.uint16))[1].tobytes())


CASES = [
    (float_tiff, (0, 1), '0 to 1'),
    (grey_png, (0, 4095), '0 to 4095'),
    (colour_png, (0, 4095), '0 to 3840'),  # of which Pillow knows the upper 8 bits
]


@pytest.mark.parametrize(('save', 'deep_range', 'values'), CASES)
def test_images_that_turn_black_are_found_and_a_range_helps(
    tmp_path, save, deep_range, values
):
    save(write(tmp_path) / 'a.jpg')
    step = dict(type='RFDETRLoadImage')
    dataset = build(tmp_path, pipeline=[step])
    assert dataset.findings.examples[Finding.DEEP_PIXELS] == [f'a.jpg ({values})']
    assert 'set deep_range of RFDETRLoadImage' in dataset.findings.table()
    assert dataset[0]['img'].max() < 16
    # What the table says to do.
    dataset = build(tmp_path, pipeline=[dict(step, deep_range=deep_range)])
    assert Finding.DEEP_PIXELS not in dataset.findings.counts
    blue = dataset[0]['img'][..., 0].astype(int)
    np.testing.assert_allclose(blue, LEVELS, atol=1)


@pytest.mark.parametrize(
    'save', [lambda path: float_tiff(path, 255), lambda path: grey_png(path, 65535)]
)
def test_the_usual_ranges_are_no_finding(tmp_path, save):
    save(write(tmp_path) / 'a.jpg')
    dataset = build(tmp_path)
    assert Finding.DEEP_PIXELS not in dataset.findings.counts
    reading = Reading()
    pixels = decode_image((tmp_path / 'a.jpg').read_bytes(), reading=reading)
    np.testing.assert_allclose(pixels[..., 0].astype(int), LEVELS, atol=1)


def test_floats_beyond_white_are_found(tmp_path):
    float_tiff(write(tmp_path) / 'a.jpg', 4000)
    assert build(tmp_path).findings.counts[Finding.DEEP_PIXELS] == 1


def test_an_image_that_is_black_itself_is_no_finding(tmp_path):
    grey_png(write(tmp_path) / 'a.jpg', 0)
    assert Finding.DEEP_PIXELS not in build(tmp_path).findings.counts


def test_the_jittered_loader_reads_the_same_range(tmp_path):
    path = tmp_path / 'a.png'
    grey_png(path)
    load = RFDETRLoadJittered(64, jitter_prob=0, flip_prob=0, deep_range=(0, 4095))
    pixels = load(dict(img_path=str(path)))['img']
    assert pixels.max() > 250
    dark = RFDETRLoadJittered(64, jitter_prob=0, flip_prob=0)
    assert dark(dict(img_path=str(path)))['img'].max() < 16


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


@pytest.mark.parametrize('as_array', [True, False])
def test_a_deep_image_that_no_data_set_looked_at_is_logged_once(
    tmp_path, as_array, monkeypatch
):
    lines = []
    monkeypatch.setattr(loading, 'print_log', lambda text, **_: lines.append(text))
    image = str(tmp_path / 'a.png')
    grey_png(image)
    if as_array:
        image = (RAMP * 4095).astype(np.uint16)
    load = RFDETRLoadImage()
    load(image)
    load(image)
    (line,) = lines
    assert '0 to 4095' in line and 'deep_range' in line
    lines.clear()
    assert RFDETRLoadImage(deep_range=(0, 4095))(image)['img'].max() == 255
    assert lines == []


def test_a_range_is_any_pair_and_nothing_else():
    pair = np.array([0, 4095])
    pixels = RFDETRLoadImage(deep_range=pair)((RAMP * 4095).astype(np.uint16))['img']
    assert pixels.max() == 255
    for wrong in ((), False, (4095, 0), (0, float('nan'))):
        with pytest.raises(SettingError, match='a pair of values'):
            RFDETRLoadImage(deep_range=wrong)
