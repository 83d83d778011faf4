"""Where pictures come from, and with which pixels they are read."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from rfdetr_predict import Sources
from rfdetr_runtime import Detector, SourceError
from rfdetr_runtime.pictures import as_colours, read_picture

from mmdet_rfdetr.data.images import decode_image
from mmdet_rfdetr.data.levels import array_to_bgr
from tests.factory import picture
from tests.test_runtime.squares import Squares, draw, write_video


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Pictures, one of them broken, in two folders, and a video."""
    folder = tmp_path_factory.mktemp('sources')
    (folder / 'deep').mkdir()
    for number, name in enumerate(('b.png', 'a.jpg', 'deep/c.png')):
        picture(20, 30 + number, number).save(folder / name)
    (folder / 'deep' / 'cut off.jpg').write_bytes((folder / 'a.jpg').read_bytes()[:300])
    (folder / 'notes.md').write_text('no picture')
    frames = [draw((40, 60), ('red', n, 5, n + 10, 20)) for n in range(7)]
    write_video(folder / 'deep' / 'drive.avi', frames)
    return folder


def names(sources):
    return [picture.name for picture in sources]


def test_a_folder_holds_all_below_it_in_order(folder):
    sources = Sources([str(folder)])
    found = list(sources)
    assert [picture.name for picture in found] == [
        *('a.jpg', 'b.png', 'deep/c.png', 'deep/cut off.jpg'),
        *['deep/drive.avi'] * 7,
    ]
    assert sources.count() == len(found) == 11
    assert [picture.image_id for picture in found] == list(range(1, 12))
    assert [picture.frame for picture in found[4:]] == list(range(7))
    assert found[-1].seconds == 6 / 25 and found[-1].rate == 25


def test_a_broken_picture_says_why_and_the_others_are_read(folder):
    broken = [p for p in Sources([folder / 'a.jpg', folder / 'deep']) if p.error]
    assert len(broken) == 1
    assert broken[0].image is None and broken[0].name == 'deep/cut off.jpg'
    assert 'cut off.jpg: ' in broken[0].error


def test_globs_lists_and_files_name_pictures(folder, tmp_path, monkeypatch):
    assert names(Sources([str(folder / '*.png')])) == ['b.png']
    assert names(Sources([str(folder / '**' / '*.png')])) == ['b.png', 'deep/c.png']
    # As a shell expands a glob: names are those below what all have in common.
    assert names(Sources([folder / 'a.jpg', folder / 'deep/c.png'])) == [
        *('a.jpg', 'deep/c.png')
    ]
    lines = tmp_path / 'list.txt'
    lines.write_text(f'{folder}/a.jpg\n\n{folder}/deep/c.png\nmissing.jpg\n')
    found = list(Sources([lines]))
    assert [picture.image is None for picture in found] == [False, False, True]
    assert found[2].error.endswith('missing.jpg: does not exist')
    assert len(names(Sources([lines], root=str(folder)))) == 3
    monkeypatch.chdir(folder)
    assert names(Sources(['a.jpg'])) == ['a.jpg']


def test_names_lead_out_of_no_folder(folder, tmp_path):
    lines = tmp_path / 'list.txt'
    lines.write_text(f'{folder}/deep/c.png\n{folder}/deep/../a.jpg\n')
    for name in names(Sources([lines])):
        assert not name.startswith('/') and '..' not in name


def test_a_coco_file_gives_ids(folder, tmp_path):
    images = [
        dict(id=70, file_name='deep/c.png', height=20, width=32),
        dict(id=3, file_name='a.jpg', height=20, width=31),
    ]
    kinds = [dict(id=17, name='cat'), dict(id=90, name='dog')]
    (folder / 'annotations').mkdir(exist_ok=True)
    path = folder / 'annotations' / 'val.json'
    path.write_text(json.dumps(dict(images=images, annotations=[], categories=kinds)))
    sources = Sources([path])  # the pictures lie above it
    assert [(p.image_id, p.error) for p in sources] == [(70, None), (3, None)]
    assert sources.category_ids == dict(cat=17, dog=90)
    path = tmp_path / 'val.json'
    path.write_text('{"images": [{"id": 3}]}')
    with pytest.raises(SourceError, match=r'val\.json is no COCO file.*file_name'):
        Sources([path])


def test_arrays_are_sources(folder):
    grey = np.full((8, 9), 7, np.uint8)
    found = list(Sources([grey, folder / 'b.png', np.zeros((2, 2, 5))]))
    assert found[0].image.shape == (8, 9, 3) and found[0].name == 'array-000001'
    assert found[2].image is None and '(2, 2, 5)' in found[2].error


def test_what_is_not_there_is_told_before_anything_is_done(folder, tmp_path):
    with pytest.raises(SourceError, match=r'nowhere\.jpg is not there'):
        Sources([str(folder / 'nowhere.jpg')])
    with pytest.raises(SourceError, match='holds no picture and no video'):
        Sources([str(tmp_path)])


def test_a_video_or_camera_that_cannot_be_read_is_named(tmp_path, capfd):
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    (only,) = Sources([tmp_path])
    assert only.image is None and 'broken.mp4: no video' in only.error
    (only,) = Sources(['63'])
    assert only.image is None and 'no camera' in only.error
    assert Sources(['63']).count() is None


def kinds_of_pictures(folder):
    """Files of all kinds that there are rules for."""
    picture(20, 30).save(folder / 'plain.png')
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(20, 30).save(folder / 'turned.jpg', exif=turned)
    picture(20, 30).convert('L').save(folder / 'grey.png')
    picture(20, 30).convert('CMYK').save(folder / 'cmyk.jpg')
    picture(20, 30).convert('P').save(folder / 'palette.png')
    picture(20, 30).convert('RGBA').save(folder / 'clear.png')
    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16)
    Image.fromarray(deep).save(folder / 'deep.png')
    Image.fromarray(deep.astype(np.float32)).save(folder / 'float.tiff')
    picture(20, 30).save(folder / 'turned.tiff', exif=turned)
    picture(20, 30).save(folder / 'moving.gif')
    picture(20, 30).save(folder / 'small.webp', exif=turned)
    return sorted(folder.iterdir())


def test_pixels_are_those_of_training(tmp_path):
    paths = kinds_of_pictures(tmp_path)
    assert len(paths) == 11
    for path in paths:
        expected = decode_image(path.read_bytes())
        assert np.array_equal(read_picture(str(path)), expected), path.name
    turned = tmp_path / 'turned.jpg'
    assert read_picture(str(turned)).shape == (30, 20, 3)
    stated = (20, 30)  # boxes were drawn on the pixels as they are stored
    expected = decode_image(turned.read_bytes(), stated)
    assert np.array_equal(read_picture(str(turned), stated), expected)


@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize('dtype', [np.uint8, np.int64, np.uint16, np.float32, bool])
def test_arrays_become_what_training_makes_of_them(shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape)
    image = values.astype(dtype) * (256 if dtype == np.uint16 else 1)
    assert np.array_equal(as_colours(image), array_to_bgr(image))


def test_a_detector_takes_paths_and_arrays(tmp_path):
    image = draw((40, 60), ('red', 5, 5, 20, 20))
    cv2.imwrite(str(tmp_path / 'red.png'), image)
    detect = Detector(Squares(), threshold=0.1)
    one = detect(image)
    several = detect([str(tmp_path / 'red.png'), tmp_path / 'red.png', image])
    for found in (one, *several):
        assert found.boxes.tolist() == [[5, 5, 20, 20]]
        assert found.names == ['red']
    assert detect([]) == []
