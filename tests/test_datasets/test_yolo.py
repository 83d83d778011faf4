"""YOLO, also as it should not be."""

import codecs
import json
import math

import numpy as np
import pytest
from PIL import Image
from rfdetr_datasets import DatasetError, read_yolo

from tests.fixtures import DATA, needs_data
from tests.test_datasets.folders import draw, fill, write, yolo


def boxes(document):
    return [annotation.get('bbox') for annotation in document['annotations']]


def test_boxes_are_pixels_and_ids_say_where_they_stand(tmp_path):
    path = yolo(tmp_path, ['1 0.5 0.5 0.5 0.25\n\n0 0.1 0.2 0.1 0.1', '0 .5 .5 1 1'])
    document = read_yolo(path, 'train')
    assert document['images'] == [
        dict(id=1, file_name='images/train/a.png', height=40, width=60),
        dict(id=2, file_name='images/train/b.png', height=50, width=100),
    ]
    assert document['categories'] == [dict(id=0, name='cat'), dict(id=1, name='dog')]
    assert boxes(document) == [[15, 15, 30, 10], [3, 6, 6, 4], [0, 0, 100, 50]]
    ids = [(each['id'], each['category_id']) for each in document['annotations']]
    assert ids == [
        ('labels/train/a.txt:1', 1),
        ('labels/train/a.txt:3', 0),
        ('labels/train/b.txt:1', 0),
    ]


def test_a_polygon_has_its_mask_box_and_area(tmp_path):
    path = yolo(tmp_path, ['0 0.25 0.25 0.75 0.25 0.75 0.75', ''])
    (found,) = read_yolo(path, 'train')['annotations']
    assert found['segmentation'] == [[15, 10, 45, 10, 45, 30]]
    assert (found['bbox'], found['area']) == ([15, 10, 30, 20], 300)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        ('names: [no, 1, 2.50]', {0: 'no', 1: '1', 2: '2.50'}),
        ('names:\n  1: dog\n  0: cat', {0: 'cat', 1: 'dog'}),
        ('names: {0: cat, 7: dog}', {0: 'cat', 7: 'dog'}),
        ('names: [\'größe\', "a: b"]', {0: 'größe', 1: 'a: b'}),
    ],
)
def test_names_stay_the_texts_that_they_are(tmp_path, names, expected):
    found = read_yolo(yolo(tmp_path, names=f'{names}\n'), 'train')['categories']
    assert {entry['id']: entry['name'] for entry in found} == expected


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        ('', 'names no classes'),
        ('just words', 'names no classes'),
        ('train: [a\nnames: b', 'is no YAML'),
        ('names: cat', "'cat'"),
        ('names: []', r'\[\]'),
        ('names: {cat: 0}', 'cat'),
        (f'names:\n  ? {"9" * 5000}\n  : cat', 'must be a list or have numbers'),
        ('names: [cat]', 'no entry train'),
        ('names: [cat]\ntrain: nowhere', r'nowhere.*neither'),
        (b'names: [\xe4]', 'Line 1 of .*UTF-8'),
        ('&a [*a]', 'is no YAML'),
    ],
)
def test_settings_that_cannot_be_used_are_a_sentence(tmp_path, data, said):
    path = yolo(tmp_path, data=data or '\n')
    with pytest.raises(DatasetError, match=said) as error:
        read_yolo(path, 'train')
    assert path in str(error.value)


@pytest.mark.parametrize(
    'line',
    [
        '0 0.5 0.5 0.5',  # a number too few
        '0 0.5 0.5 0.5 0.5 0.9',  # of predictions, with a score
        '0 0.1 0.1 0.2 0.2 0.3 0.3 0.4',  # half a point
        '0,0.5,0.5,0.5,0.5',
        '0 0.5 0.5 half 0.5',
        '0',
        '\ufffd\ufffd',
    ],
)
def test_a_line_of_other_columns_is_an_object_without_a_box(tmp_path, line):
    path = yolo(tmp_path, [f'0 0.5 0.5 0.5 0.5\n{line}', ''])
    _, broken = read_yolo(path, 'train')['annotations']
    assert broken['id'] == 'labels/train/a.txt:2' and 'bbox' not in broken


@pytest.mark.parametrize(
    ('label', 'expected'),
    [('7', 7), ('-1', -1), ('1.0', 1), ('cat', 'cat'), ('.5', '.5')],
)
def test_a_class_is_carried_over_as_it_stands(tmp_path, label, expected):
    path = yolo(tmp_path, [f'{label} 0.5 0.5 0.5 0.5', ''])
    (found,) = read_yolo(path, 'train')['annotations']
    assert found['category_id'] == expected


def test_numbers_are_carried_over_as_they_are(tmp_path):
    lines = ['0 30 20 10 10', '0 0.5 0.5 -0.1 0.1', '0 nan 0.5 inf 0.1', '0 1 1 1 1']
    found = boxes(read_yolo(yolo(tmp_path, ['\n'.join(lines), '']), 'train'))
    assert found[0] == [1500, 600, 600, 400]
    assert found[1] == [33, 18, -6, 4]
    assert math.isnan(found[2][0]) and found[2][2] == math.inf
    assert found[3] == [30, 20, 60, 40]


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_marks_and_line_ends_of_every_system(tmp_path, end, coding):
    lines = ['0 0.5 0.5 0.5 0.25', '1 0.1 0.2 0.1 0.1', '']
    path = yolo(tmp_path, [end.join(lines).encode(coding), ''])
    settings = end.join(['train: images/train', 'names: [cat, dog]', ''])
    write(tmp_path / 'data.yaml', settings.encode(coding))
    document = read_yolo(path, 'train')
    assert boxes(document) == [[15, 15, 30, 10], [3, 6, 6, 4]]
    assert [each['category_id'] for each in document['annotations']] == [0, 1]


def test_images_without_labels_or_with_empty_ones_have_no_objects(tmp_path):
    document = read_yolo(yolo(tmp_path, [None, ' \r\n']), 'train')
    assert len(document['images']) == 2 and document['annotations'] == []


def test_labels_that_belong_to_no_image_are_objects_of_none(tmp_path):
    path = yolo(tmp_path, ['0 0.5 0.5 0.5 0.5', ''])
    fill(tmp_path / 'labels/train', **{'c.txt': '1 .5 .5 .1 .1', 'notes.txt': 'words'})
    _, orphan = read_yolo(path, 'train')['annotations']
    assert orphan['id'] == 'labels/train/c.txt:1'
    assert orphan['image_id'] == 'labels/train/c.txt'


def test_an_image_that_cannot_be_opened_stays_without_size(tmp_path):
    path = yolo(tmp_path, ['0 0.5 0.5 0.5 0.5', '0 0.5 0.5 0.5 0.5'])
    write(tmp_path / 'images' / 'train' / 'a.png', b'')
    document = read_yolo(path, 'train')
    assert document['images'][0]['height'] is None
    assert [each['image_id'] for each in document['annotations']] == [2]


def test_labels_beside_images_and_lists_with_paths_of_windows(tmp_path):
    draw(tmp_path / 'obj', names=('a', 'b', 'c'))
    text = '0 0.5 0.5 0.5 0.25'
    fill(tmp_path / 'obj', **{'a.txt': text, 'b.txt': text, 'classes.txt': 'cat'})
    write(tmp_path / 'train.txt', './obj/a.png\r\nobj\\b.png\r\n\r\nobj/gone.png\r\n')
    path = str(tmp_path / 'data.yaml')
    write(tmp_path / 'data.yaml', 'train: train.txt\nval: [obj]\nnames: [cat]')
    document = read_yolo(path, 'train')
    names = [image['file_name'] for image in document['images']]
    assert names == ['obj/a.png', 'obj/b.png', 'obj/gone.png']
    assert len(document['annotations']) == 2
    document = read_yolo(path, 'val')
    assert len(document['images']) == 3 and len(document['annotations']) == 2


@pytest.mark.parametrize(
    'entries',
    [
        'train: ../train/images',  # of an export that means its own folder
        'train: train/images',
        'train: .\\train\\images',
        'path: .\ntrain: train/images',
        'path: data\ntrain: images\n',
    ],
)
def test_folders_are_found_as_others_write_them(tmp_path, entries):
    inner = 'data' if 'data' in entries else 'train'
    draw(tmp_path / 'set' / inner / 'images')
    write(tmp_path / 'set' / inner / 'labels' / 'b.txt', '0 0.5 0.5 0.5 0.5')
    write(tmp_path / 'set' / 'data.yml', f'{entries}\nnames: [cat]')
    document = read_yolo(str(tmp_path / 'set' / 'data.yml'), 'train')
    names = [image['file_name'] for image in document['images']]
    assert names == [f'{inner}/images/a.png', f'{inner}/images/b.png']
    assert boxes(document) == [[25, 12.5, 50, 25]]


def test_a_turned_photograph_has_the_size_that_viewers_show(tmp_path):
    path = yolo(tmp_path, ['0 0.5 0.5 0.5 0.5', ''])
    (tmp_path / 'images' / 'train' / 'a.png').unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    image.save(tmp_path / 'images' / 'train' / 'a.jpg', exif=exif)
    document = read_yolo(path, 'train')
    assert document['images'][0]['height'] == 60
    assert boxes(document) == [[10, 15, 20, 30]]


def test_a_byte_order_mark_alone_is_an_empty_file(tmp_path):
    path = yolo(tmp_path, [codecs.BOM_UTF8, b'\x00\xff\xfe'])
    (found,) = read_yolo(path, 'train')['annotations']
    assert found['id'] == 'labels/train/b.txt:1' and 'bbox' not in found


@needs_data
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_labels_are_the_objects_of_the_coco_file(tmp_path, split):
    """The labels have six digits of a fraction, the COCO file two of a pixel.

    Two files of labels belong to images that are in neither.
    """
    (tmp_path / 'images').symlink_to(DATA / 'coco128' / 'images')
    (tmp_path / 'labels').symlink_to(DATA / 'coco128' / 'yolo_labels')
    settings = (DATA / 'coco128' / 'yolo_data.yaml').read_text()
    write(tmp_path / 'data.yaml', settings)
    document = read_yolo(str(tmp_path / 'data.yaml'), split)
    path = DATA / 'coco128' / 'annotations' / f'instances_{split}2017.json'
    coco = json.loads(path.read_text())
    orphans = {
        each['image_id'][-10:-4]
        for each in document['annotations']
        if isinstance(each['image_id'], str)
    }
    assert orphans == ({'000656', '000659'} if split == 'train' else set())
    assert objects(document) == objects(coco)
    assert len(coco['annotations']) > 800


def objects(document):
    """Name of the image, its size, class and box, of every object in its order."""
    images = {
        image['id']: (image['file_name'][-16:], image['height'], image['width'])
        for image in document['images']
    }
    names = {entry['id']: entry['name'] for entry in document['categories']}
    return sorted(
        (
            *images[each['image_id']],
            names[each['category_id']],
            *(round(number, 2) for number in each['bbox']),
        )
        for each in document['annotations']
        if each['image_id'] in images
    )
