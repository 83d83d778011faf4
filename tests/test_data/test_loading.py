"""Decoding of image files."""

import io

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage
from mmdet_rfdetr.data.images import ImageSource, decode_image, read_size
from mmdet_rfdetr.data.loading import GuardedLoader
from mmdet_rfdetr.errors import BadImageError
from mmdet_rfdetr.faults.findings import Finding


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
    np.testing.assert_array_equal(stored, pixels if orientation > 4 else turn(pixels))


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'bmp', 'tiff', 'gif'])
def test_sizes_are_read_from_the_header(tmp_path, kind):
    path = tmp_path / 'image'
    path.write_bytes(encoded(ramp(24, 40), kind))
    assert read_size(str(path)) == ((24, 40), (24, 40))


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'tiff'])
def test_sizes_of_turned_photographs(tmp_path, kind):
    path = tmp_path / 'image'
    path.write_bytes(encoded(ramp(24, 40), kind, exif=turned(8)))
    assert read_size(str(path)) == ((24, 40), (40, 24))
    path.write_bytes(encoded(ramp(24, 40), kind, exif=turned(3)))
    assert read_size(str(path)) == ((24, 40), (24, 40))


@pytest.mark.parametrize('kind', ['jpeg', 'png', 'webp', 'bmp', 'gif'])
@pytest.mark.parametrize('part', [0, 0.02, 0.3, 0.9])
def test_files_cut_off_anywhere_are_noticed(kind, part):
    pixels = np.random.RandomState(0).randint(256, size=(64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    with pytest.raises(BadImageError) as error:
        decode_image(data[: int(part * len(data))])
    expected = Finding.FILE_UNREADABLE if part else Finding.FILE_EMPTY
    assert error.value.finding is expected


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
def test_orientations_that_mean_nothing_are_not_followed(tmp_path, exif):
    path = tmp_path / 'odd.jpg'
    path.write_bytes(encoded(ramp(40, 60), exif=exif))
    assert read_size(path) == ((40, 60), (40, 60))
    assert ImageSource(path.read_bytes()).shape == (40, 60)


@pytest.mark.parametrize(
    ('data', 'finding'),
    [
        (None, Finding.FILE_MISSING),
        (b'', Finding.FILE_EMPTY),
        (b'no image', Finding.FILE_UNREADABLE),
        (encoded(ramp(20, 30), 'tga'), Finding.FILE_UNREADABLE),  # for OpenCV
    ],
    ids=['missing', 'empty', 'no image', 'of Pillow alone'],
)
def test_a_guarded_loader_says_what_is_wrong_with_a_file(data, finding, tmp_path):
    path = tmp_path / 'image'
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadImageError) as caught:
        GuardedLoader(LoadImageFromFile())(dict(img_path=str(path)))
    assert caught.value.finding is finding
