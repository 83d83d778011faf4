"""Decoding of image files."""

import io

import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage
from mmdet_rfdetr.data.images import (
    FORMATS,
    ImageSource,
    Reading,
    decode_image,
    naming_faults,
)
from mmdet_rfdetr.errors import BadImageError, SettingError


def ramp(height, width):
    """A picture that keeps its look at any size."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x / width, y / height, (x + y) / (width + height)], axis=2)
    return Image.fromarray((255 * pixels).astype(np.uint8))


def encoded(image, kind='jpeg', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_floating_point_on_request(tmp_path):
    path = tmp_path / 'image.png'
    path.write_bytes(encoded(ramp(20, 30), 'png'))
    image = RFDETRLoadImage(to_float32=True)(dict(img_path=str(path)))['img']
    assert image.dtype == np.float32
    assert image.max() > 200


@pytest.mark.parametrize('kind', ['png', 'tiff'])  # Pillow turns the latter itself
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientations_are_those_of_a_viewer(orientation, kind):
    data = encoded(ramp(24, 40), kind, exif=turned(orientation))
    pixels = np.asarray(ramp(24, 40))[:, :, ::-1]
    turn = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p),
    }[orientation]
    np.testing.assert_array_equal(decode_image(data), turn(pixels))
    # The size as stored decides only where it differs.
    stored = decode_image(data, size=(24, 40))
    is_stored = orientation > 4 and kind != 'tiff'
    np.testing.assert_array_equal(stored, pixels if is_stored else turn(pixels))


@pytest.mark.parametrize('kind', FORMATS)
def test_every_format_is_read(kind):
    source = ImageSource(encoded(ramp(24, 40), kind))
    assert source.shape == (24, 40)
    assert source.decode().size == (40, 24)


def test_a_file_that_starts_another_program_is_no_image():
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    data = encoded(ramp(24, 40), 'eps')
    with pytest.raises(BadImageError, match='no image in one of .*JPEG'):
        decode_image(data)


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'tiff'])
def test_sizes_of_turned_photographs(kind):
    data = encoded(ramp(24, 40), kind, exif=turned(8))
    assert ImageSource(data).shape == (40, 24)
    is_tiff = kind == 'tiff'
    assert ImageSource(data, (24, 40)).shape == ((40, 24) if is_tiff else (24, 40))
    assert ImageSource(encoded(ramp(24, 40), kind, exif=turned(3))).shape == (24, 40)


def test_a_bound_of_pixels_may_be_below_and_above_pillows(monkeypatch):
    data = encoded(ramp(40, 60), 'png')
    with pytest.raises(BadImageError, match='max_pixels=2399') as caught:
        decode_image(data, reading=Reading(max_pixels=40 * 60 - 1))
    assert caught.value.kind == 'huge'
    assert decode_image(data, reading=Reading(max_pixels=40 * 60)).shape == (40, 60, 3)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 400)
    with pytest.raises(BadImageError) as caught:
        decode_image(data)
    assert caught.value.kind == 'huge'
    reading = Reading(max_pixels=2 * Reading.max_pixels)
    assert decode_image(data, reading=reading).shape == (40, 60, 3)


@pytest.mark.parametrize(
    'settings',
    [
        dict(max_pixels=0),
        dict(max_pixels='many'),
        dict(deep_range=(5, 5)),
        dict(deep_range=4095),
        dict(deep_range=(0, float('nan'))),
        dict(deep_range=(0, 1, 2)),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(SettingError, match='max_pixels .* deep_range'):
        RFDETRLoadImage(**settings)


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'bmp', 'gif'])
@pytest.mark.parametrize('part', [0, 0.02, 0.3, 0.9])
def test_files_cut_off_anywhere_are_noticed(kind, part):
    pixels = np.random.RandomState(0).randint(256, size=(64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(BadImageError) as error:
        decode_image(data[: int(part * len(data))])
    assert error.value.kind == ('unreadable' if part else 'empty')


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'bmp', 'gif'])
def test_random_damage_never_raises_anything_else(kind):
    data = encoded(ramp(40, 50), kind)
    random = np.random.RandomState(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.randint(len(data), size=5):
            damaged[position] = random.randint(256)
        try:
            outcomes.add(decode_image(bytes(damaged)).ndim)
        except BadImageError:
            outcomes.add('bad')
    assert outcomes <= {3, 'bad'}
    assert 'bad' in outcomes or kind == 'bmp'  # which has nothing to check


def exif_of_type(kind):
    """Orientation 6, and another type of the number than the standard has."""
    exif = turned(6).tobytes()
    for order, short in (('little', b'\x12\x01\x03\x00'), ('big', b'\x01\x12\x00\x03')):
        number = kind.to_bytes(2, order)
        exif = exif.replace(short, short.replace((3).to_bytes(2, order), number))
    return exif


@pytest.mark.parametrize(
    'exif',
    (exif_of_type(2), exif_of_type(7), turned(99), turned(0)),
    ids=('text', 'bytes', '99', '0'),
)
def test_orientations_that_mean_nothing_are_not_followed(exif):
    assert ImageSource(encoded(ramp(40, 60), exif=exif)).shape == (40, 60)


def test_a_device_is_not_opened():
    with pytest.raises(BadImageError, match='device'):
        RFDETRLoadImage()('/dev/null')


def test_a_mistake_in_the_code_is_not_taken_for_a_bad_file():
    with pytest.raises(TypeError), naming_faults('a.jpg'):
        len(5)
    with pytest.raises(BadImageError, match='a.jpg: no bytes'), naming_faults('a.jpg'):
        raise ValueError('no bytes')
