"""Image files of strangers: special files, other formats, damage, sizes."""

import io
import json
import os
import socket
import struct
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.data.images import AS_OFFICIAL, FORMATS, decode_image
from mmdet_rfdetr.errors import BadDataError, BadImageError
from mmdet_rfdetr.faults import image_files
from mmdet_rfdetr.faults.findings import Finding
from mmdet_rfdetr.faults.image_files import read_sizes
from tests.factory import build, document, picture, write


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
def test_damage_to_any_format_is_a_broken_image(tmp_path, kind):
    data = encoded(kind)
    path = tmp_path / 'image'
    path.write_bytes(data)
    assert decode_image(data).shape == (24, 40, 3)
    assert read_sizes(path, AS_OFFICIAL)[0] == ((24, 40), (24, 40))
    random = np.random.RandomState(0)
    outcomes = set()
    for count in range(120):
        damaged = bytearray(data)
        # The header is where most can go wrong.
        end = min(len(data), 160) if count % 2 else len(data)
        for position in random.randint(end, size=1 + count % 4):
            damaged[position] = random.choice([0, 255, random.randint(256)])
        if count % 5 == 0:
            del damaged[random.randint(1, len(data)) :]
        path.write_bytes(damaged)
        for read in (
            lambda path: read_sizes(path, AS_OFFICIAL),
            lambda path: decode_image(path.read_bytes()),
        ):
            try:
                outcomes.add(len(read(path)) > 0)
            except BadImageError as error:
                outcomes.add(error.kind)
    assert 'unreadable' in outcomes
    assert outcomes <= {True, 'unreadable', 'huge'}


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


def test_a_bound_of_pixels_holds_everywhere(tmp_path):
    write(tmp_path)
    step = dict(type='RFDETRLoadImage', max_pixels=40 * 60)
    assert len(build(tmp_path, pipeline=[step])) == 2  # one image is of 50 x 50
    with pytest.raises(BadDataError, match='3 +image of more pixels than max_pixels'):
        build(tmp_path, pipeline=[dict(step, max_pixels=40 * 60 - 1)])


RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)
LEVELS = np.round(RAMP * 255).astype(int)


def float_tiff(path, brightest=1.0):
    Image.fromarray((RAMP * brightest).astype(np.float32)).save(path, 'tiff')


def grey_png(path, brightest=4095):
    Image.fromarray((RAMP * brightest).astype(np.uint16)).save(path, 'png')


def colour_png(path, brightest=4095):
    pixels = np.stack([RAMP * brightest, RAMP * 0, RAMP[::-1] * brightest], 2)
    path.write_bytes(cv2.imencode('.png', pixels.astype(np.uint16))[1].tobytes())


@pytest.mark.parametrize(
    ('save', 'deep_range', 'values'),
    [(float_tiff, (0, 1), '0 to 1'), (grey_png, (0, 4095), '0 to 4095')],
)
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


def test_colours_of_12_bits_are_found_with_any_range(tmp_path):
    """Of which Pillow knows the upper 8 bits."""
    colour_png(write(tmp_path) / 'a.jpg')
    for deep_range in (None, (0, 4095)):
        step = dict(type='RFDETRLoadImage', deep_range=deep_range)
        findings = build(tmp_path, pipeline=[step]).findings
        assert findings.examples[Finding.DEEP_PIXELS] == ['a.jpg (0 to 3840)']


def test_floats_beyond_white_are_found(tmp_path):
    float_tiff(write(tmp_path) / 'a.jpg', 4000)
    assert build(tmp_path).findings.counts[Finding.DEEP_PIXELS] == 1


def test_an_image_that_is_black_itself_is_no_finding(tmp_path):
    grey_png(write(tmp_path) / 'a.jpg', 0)
    assert Finding.DEEP_PIXELS not in build(tmp_path).findings.counts


def test_files_are_opened_once_and_many_at_a_time(tmp_path, monkeypatch):
    """A thread is given some, and every one is looked at, also the last."""
    counts = Counter()
    opened = image_files.open_image

    def counted(path, *others):
        counts[os.path.basename(path)] += 1
        return opened(path, *others)

    monkeypatch.setattr(image_files, 'open_image', counted)
    monkeypatch.setattr(image_files, '_PARTS', 3)
    data = document()
    write(tmp_path, data)
    data['images'] = [
        dict(id=number, file_name=f'{number}.jpg', height=40, width=60)
        for number in range(20)
    ]
    data['annotations'] = []
    for image in data['images'][:-1]:
        os.link(tmp_path / 'a.jpg', tmp_path / image['file_name'])
    (tmp_path / 'annotations.json').write_text(json.dumps(data))
    findings = build(tmp_path, pipeline=[]).findings
    assert counts == {f'{number}.jpg': 1 for number in range(19)}
    assert findings.examples[Finding.FILE_MISSING] == ['19.jpg']
