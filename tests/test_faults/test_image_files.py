"""Image files of strangers: special files, other formats, damage, sizes."""

import io
import os
import socket
import struct
import warnings

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmdet_rfdetr.data import RFDETRLoadImage
from mmdet_rfdetr.data.images import (
    FORMATS,
    Reading,
    decode_image,
    read_header,
    read_size,
)
from mmdet_rfdetr.data.loading import GuardedLoader
from mmdet_rfdetr.errors import BadDataError, BadImageError, SettingError
from mmdet_rfdetr.faults.findings import Finding
from mmdet_rfdetr.speed.jittered import RFDETRLoadJittered
from tests.factory import build, document, picture, write

LOADERS = (
    RFDETRLoadImage,
    lambda **settings: RFDETRLoadJittered(image_size=64, **settings),
)
OF_MMCV = GuardedLoader(LoadImageFromFile(color_type='unchanged'))


def special_file(kind, folder):
    """A file name that must not be opened."""
    if kind == 'pipe':
        os.mkfifo(folder / 'pipe.jpg')
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(os.path.relpath(folder / 'socket.jpg'))
    elif kind == 'folder':
        (folder / 'folder.jpg').mkdir()
    else:
        return {'device': '/dev/zero', 'url': 'https://localhost:9/a.jpg'}[kind]
    return f'{kind}.jpg'


@pytest.mark.parametrize('check_images', [True, False])
@pytest.mark.parametrize('kind', ['pipe', 'socket', 'folder', 'device', 'url'])
def test_what_is_no_ordinary_file_is_found(tmp_path, kind, check_images):
    write(tmp_path)
    data = document()
    data['images'][1]['file_name'] = special_file(kind, tmp_path)
    write(tmp_path, data)
    dataset = build(tmp_path, check_images=check_images)
    expected = Finding.FILE_REMOTE if kind == 'url' else Finding.FILE_SPECIAL
    assert dataset.findings.counts[expected] == 1
    assert len(dataset) == 2


@pytest.mark.parametrize(
    'loader', [LOADERS[0](), LOADERS[1](), OF_MMCV], ids=['image', 'jittered', "mmcv's"]
)
@pytest.mark.parametrize('kind', ['pipe', 'folder', 'device'])
def test_loaders_do_not_open_what_is_no_ordinary_file(tmp_path, kind, loader):
    path = str(tmp_path / special_file(kind, tmp_path))
    with pytest.raises(BadImageError, match='device or pipe') as caught:
        loader(dict(img_path=path))
    assert caught.value.finding is Finding.FILE_SPECIAL
    assert path in str(caught.value)


def test_a_file_of_more_bytes_than_its_pixels_can_have_is_not_read(tmp_path):
    path = tmp_path / 'sparse.jpg'
    with open(path, 'wb') as file:
        file.truncate(2**40)
    with pytest.raises(BadImageError, match='1099511627776 bytes') as caught:
        RFDETRLoadImage()(dict(img_path=str(path)))
    assert caught.value.finding is Finding.FILE_HUGE


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 60 40
%%EndComments
(/dev/null) run
%%EOF
"""


def test_a_file_that_starts_another_program_is_no_image(tmp_path):
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    with Image.open(io.BytesIO(EPS)) as image:
        assert image.format == 'EPS'
    write(tmp_path)
    (tmp_path / 'a.jpg').write_bytes(EPS)
    dataset = build(tmp_path)
    assert dataset.findings.counts[Finding.FILE_UNREADABLE] == 1
    with pytest.raises(BadImageError, match='no image in one of .*JPEG'):
        decode_image(EPS)


def encoded(kind):
    buffer = io.BytesIO()
    picture(24, 40).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize('kind', FORMATS)
def test_damage_to_any_format_is_a_broken_image_and_no_warning(tmp_path, kind):
    data = encoded(kind)
    path = tmp_path / 'image'
    path.write_bytes(data)
    assert decode_image(data).shape == (24, 40, 3)
    assert read_size(path) == ((24, 40), (24, 40))
    random = np.random.RandomState(0)
    outcomes = set()
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for count in range(120):
            damaged = bytearray(data)
            # The header is where most can go wrong.
            end = min(len(data), 160) if count % 2 else len(data)
            for position in random.randint(end, size=1 + count % 4):
                damaged[position] = random.choice([0, 255, random.randint(256)])
            if count % 5 == 0:
                del damaged[random.randint(1, len(data)) :]
            path.write_bytes(damaged)
            for read in (read_size, lambda path: decode_image(path.read_bytes())):
                try:
                    outcomes.add(len(read(path)) > 0)
                except BadImageError as error:
                    outcomes.add(error.finding)
    assert Finding.FILE_UNREADABLE in outcomes
    assert outcomes <= {True, Finding.FILE_UNREADABLE, Finding.FILE_HUGE}
    assert warnings.filters == filters


@pytest.mark.parametrize('offset', [84, 88])  # the pixel format, and its bits
def test_damage_that_pillow_does_not_foresee_is_found_at_the_start(tmp_path, offset):
    """Of a DDS of an unknown kind it says NotImplementedError."""
    data = bytearray(encoded('DDS'))
    data[80:84] = struct.pack('<I', 4)  # says that a code follows
    data[offset : offset + 4] = b'ABCD'
    write(tmp_path)
    (tmp_path / 'a.jpg').write_bytes(data)
    dataset = build(tmp_path)
    assert dataset.findings.counts[Finding.FILE_UNREADABLE] == 1
    assert len(dataset) == 2


def test_rows_that_a_file_does_not_have_are_not_black(tmp_path):
    """Pillow makes a large image of a few bytes, nearly all of it black."""
    sound, large = (struct.pack('<HHII', 257, 4, 1, rows) for rows in (24, 10**6))
    data = encoded('TIFF')
    assert sound in data
    path = tmp_path / 'image'
    path.write_bytes(data.replace(sound, large))
    for read in (read_size, lambda path: decode_image(path.read_bytes())):
        with pytest.raises(BadImageError, match='lacks most of its 40 x 1000000'):
            read(path)


def test_a_bound_of_pixels_holds_everywhere(tmp_path):
    write(tmp_path)
    path = str(tmp_path / 'b.jpg')
    step = dict(type='RFDETRLoadImage', max_pixels=40 * 60)
    assert len(build(tmp_path, pipeline=[step])) == 2  # one image is of 50 x 50
    with pytest.raises(BadDataError, match='3 +image of more pixels than max_pixels'):
        build(tmp_path, pipeline=[dict(step, max_pixels=40 * 60 - 1)])
    for loader in LOADERS:
        assert loader(max_pixels=40 * 60)(dict(img_path=path))
        with pytest.raises(BadImageError, match='more than max_pixels=2399') as caught:
            loader(max_pixels=40 * 60 - 1)(dict(img_path=path))
        assert caught.value.finding is Finding.FILE_HUGE


def test_the_bound_may_be_above_pillows(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 400)
    path = tmp_path / 'image.tif'
    picture(40, 60).save(path)
    with pytest.raises(BadImageError) as caught:
        read_header(path)
    assert caught.value.finding is Finding.FILE_HUGE
    reading = Reading(max_pixels=2 * Reading.max_pixels)
    assert read_header(path, reading)[0] == ((40, 60), (40, 60))
    assert decode_image(path.read_bytes(), reading=reading).shape == (40, 60, 3)
    settings = dict(max_pixels=reading.max_pixels)
    for loader in LOADERS:
        assert loader(**settings)(dict(img_path=str(path)))['img'] is not None
    assert Image.MAX_IMAGE_PIXELS == 400


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
