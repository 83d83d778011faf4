"""Decoding of image files, and of large JPEGs at a reduced size."""

import io

import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage
from mmdet_rfdetr.data.findings import Finding
from mmdet_rfdetr.data.images import BadImageError, ImageSource, decode_image, read_size


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


@pytest.mark.parametrize(
    'size, reduction',
    [
        ((319, 319), 1),
        ((320, 330), 2),
        ((500, 319), 1),
        ((640, 750), 4),
        ((1280, 1300), 8),
        ((3000, 1300), 8),
    ],
)
def test_large_jpegs_are_decoded_at_a_fraction(tmp_path, size, reduction):
    path = tmp_path / 'large.jpg'
    path.write_bytes(encoded(ramp(*size), quality=90))
    # The largest size is 80 + 5 * 16 = 160.
    load = RFDETRLoadImage(image_size=80, size_divisor=16, offsets=(5,), min_side=100)
    box = [10.0, 20.0, 30.0, 60.0]
    original = dict(bbox=box, bbox_label=0)
    info = dict(img_path=str(path), height=size[0], width=size[1], instances=[original])
    results = load(dict(info))
    height, width = results['img'].shape[:2]
    assert (height, width) == tuple(-(-side // reduction) for side in size)
    assert results['img_shape'] == (height, width)
    (instance,) = results['instances']
    expected = np.array(box) * ([width / size[1], height / size[0]] * 2)
    np.testing.assert_allclose(instance['bbox'], expected)
    assert instance['bbox_label'] == 0
    assert original['bbox'] == box  # not changed in place
    # The picture is the same, only smaller.
    whole = np.asarray(ramp(height, width))[:, :, ::-1]
    assert np.abs(results['img'].astype(int) - whole).mean() < 3


def test_the_scale_jitter_keeps_what_it_needs():
    assert RFDETRLoadImage(image_size=128).min_side == 600
    assert RFDETRLoadImage(image_size=128, min_side=0).min_side == 128
    assert RFDETRLoadImage(image_size=800).min_side == 800
    assert RFDETRLoadImage().min_side is None


def test_without_a_size_nothing_is_reduced(tmp_path):
    path = tmp_path / 'large.jpg'
    path.write_bytes(encoded(ramp(130, 140)))
    assert RFDETRLoadImage()(dict(img_path=str(path)))['img'].shape == (130, 140, 3)


def test_reduced_and_turned_photographs(tmp_path):
    path = tmp_path / 'turned.jpg'
    path.write_bytes(encoded(ramp(120, 160), exif=turned(6)))
    load = RFDETRLoadImage(image_size=32, min_side=50)
    stored = load(dict(img_path=str(path), height=120, width=160))
    assert stored['img'].shape == (60, 80, 3)
    shown = load(dict(img_path=str(path), height=160, width=120))
    assert shown['img'].shape == (80, 60, 3)
    np.testing.assert_array_equal(np.rot90(stored['img'], -1), shown['img'])


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
