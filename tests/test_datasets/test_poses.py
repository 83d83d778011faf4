"""Poses in YOLO: objects with points."""

import json

import numpy as np
import pytest
import yaml
from rfdetr_convert import Lost, point_scheme, write_yolo
from rfdetr_datasets import DatasetError, find_dataset, read_yolo
from rfdetr_datasets.points import swapped_names

from tests.test_datasets.folders import draw, write, yolo

THREE = 'kpt_shape: [3, 3]\n'
FLIP = 'flip_idx: [0, 2, 1]\n'
NAMES = ['nose', 'left_hand', 'right_hand']
LINE = '0 0.5 0.5 0.5 0.25 0.1 0.2 2 0.25 0.5 1 0 0 0\n'


def poses(folder, line, more=THREE):
    return read_yolo(yolo(folder, [line, ''], more=more), 'train')


def test_points_are_pixels_beside_their_box(tmp_path):
    document = poses(tmp_path, LINE, THREE + FLIP)
    (found,) = document['annotations']
    assert found['bbox'] == [15, 15, 30, 10] and 'segmentation' not in found
    assert found['keypoints'] == [6, 8, 2, 15, 20, 1, 0, 0, 0]
    assert found['num_keypoints'] == 2
    for category in document['categories']:
        names = [f'keypoint_{n}' for n in range(3)]  # as officially
        assert category['keypoints'] == names
        assert category['flip_indices'] == [0, 2, 1]


def test_of_two_numbers_those_below_zero_are_absent(tmp_path):
    """And a point at the corner, as officially."""
    line = '0 0.5 0.5 0.5 0.25 0.1 0.2 -1 0.5 0.5 -0.1 0 0 1 0'
    (found,) = poses(tmp_path, line, 'kpt_shape: [5, 2]\n')['annotations']
    absent = [0, 0, 0]
    assert found['keypoints'] == [6, 8, 2, *absent * 3, 60, 0, 2]
    assert found['num_keypoints'] == 2


@pytest.mark.parametrize(
    ('line', 'points'),
    [
        ('0 0.5 0.5 0.5 0.25', None),  # an object without points
        ('0 0.5 0.5 0.5 0.25 -0.1 2 3 nan 0 -1 0 0 1.5', [-6, 80, 3, ..., 0, -1]),
    ],
)
def test_what_is_wrong_in_a_line_stays_in_it(tmp_path, line, points):
    (found,) = poses(tmp_path, line)['annotations']
    assert found['bbox'] == [15, 15, 30, 10]
    if points is None:
        assert 'keypoints' not in found
    else:
        assert found['keypoints'][:3] == points[:3]
        assert np.isnan(found['keypoints'][3]) and found['keypoints'][8] == 1.5


@pytest.mark.parametrize(
    'line',
    [
        '0 0.1 0.1 0.2 0.1 0.2 0.2',  # a polygon
        '0 0.5 0.5 0.5 0.25 0.1 0.2 2 0.25 0.5 1',  # a point too few
        '0 0.5 0.5 0.5 0.25 0.1 0.2 2 0.25 0.5 1 0 0 half',
    ],
)
def test_another_number_of_columns_is_an_object_without_a_box(tmp_path, line):
    (found,) = poses(tmp_path, line)['annotations']
    assert 'bbox' not in found and 'keypoints' not in found


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        ('kpt_shape: many\n', 'kpt_shape of .* as \\[17, 3\\]'),
        ('kpt_shape: [3]\n', 'kpt_shape'),
        ('kpt_shape: [999999999, 3]\n', 'kpt_shape'),
        (f'kpt_shape: [{"9" * 5000}, 3]\n', 'kpt_shape'),
        ('kpt_shape: [0, 3]\n', 'kpt_shape'),
        ('kpt_shape: [3, 4]\n', 'kpt_shape'),
        ('kpt_shape: [3, three]\n', 'kpt_shape'),
        (THREE + 'flip_idx: [0, 1]\n', 'flip_idx of .* each number from 0 to 2 once'),
        (THREE + 'flip_idx: [0, 1, 1]\n', 'flip_idx'),
        (THREE + 'flip_idx: [1, 2, 0]\n', 'flip_idx'),
        (THREE + 'flip_idx: left\n', 'flip_idx'),
        (THREE + 'kpt_names: [a, b]\n', 'kpt_names of .* each of the 3 points'),
        (THREE + 'kpt_names: nose\n', 'kpt_names'),
    ],
)
def test_settings_that_are_wrong_are_one_sentence(tmp_path, more, said):
    with pytest.raises(DatasetError, match=said) as error:
        poses(tmp_path, LINE, more)
    assert str(tmp_path / 'data.yaml') in str(error.value)


def test_texts_of_poses_that_belong_to_no_image_are_found(tmp_path):
    path = yolo(tmp_path, [LINE, ''], more=THREE)
    write(tmp_path / 'labels' / 'train' / 'c.txt', LINE)
    found = read_yolo(path, 'train')['annotations']
    assert [each['image_id'] for each in found] == [1, 'labels/train/c.txt']


def test_labels_with_points_come_back_as_the_same_text(tmp_path, convert):
    named = 'kpt_names: {0: [nose, left hand, right hand]}\n'
    yolo(tmp_path / 'one', [LINE, '1 0.5 0.5 1 1 0.123457 0.333333 2 1 1 2 0 0 0\n'])
    text = (tmp_path / 'one' / 'data.yaml').read_text() + THREE + FLIP + named
    (tmp_path / 'one' / 'data.yaml').write_text(text)
    assert convert(tmp_path / 'one', tmp_path / 'two')[0] == 0
    document = find_dataset(tmp_path / 'two').splits['train'].document()
    assert document['categories'][1]['keypoints'] == ['nose', 'left hand', 'right hand']
    code, said = convert(tmp_path / 'two', tmp_path / 'three')
    assert code == 0 and 'written' not in said
    for name in 'ab':
        texts = [
            (tmp_path / part / 'labels' / 'train' / f'{name}.txt').read_text()
            for part in ('one', 'three')
        ]
        assert texts[0] == texts[1]
    text = (tmp_path / 'three' / 'data.yaml').read_text()
    settings = yaml.safe_load(text)
    assert '&' not in text  # each class with a list that can be edited
    assert settings['kpt_shape'] == [3, 3] and settings['flip_idx'] == [0, 2, 1]
    assert settings['kpt_names'][0] == ['nose', 'left hand', 'right hand']


def coco_poses(*keypoints, **more):
    """A document of one image, with an object for each list of points."""
    annotations = [
        dict(id=n, image_id=1, category_id=1, bbox=[5, 6, 20, 10], keypoints=x, **more)
        for n, x in enumerate(keypoints, 1)
    ]
    return dict(
        images=[dict(id=1, file_name='a.png', height=40, width=60)],
        annotations=annotations,
        categories=[dict(id=1, name='person', keypoints=NAMES)],
    )


def test_sides_of_a_coco_file_are_those_of_its_names(tmp_path, convert):
    draw(tmp_path / 'one', names=('a',))
    document = coco_poses([1, 2, 2, 3, 4, 1, 0, 0, 0])
    write(tmp_path / 'one' / 'train.json', json.dumps(document))
    code, said = convert(tmp_path / 'one', tmp_path / 'two')
    assert code == 0 and 'written' not in said
    (found,) = find_dataset(tmp_path / 'two').splits['train'].document()['annotations']
    assert found['keypoints'] == document['annotations'][0]['keypoints']
    settings = yaml.safe_load((tmp_path / 'two' / 'data.yaml').read_text())
    assert settings['flip_idx'] == swapped_names(NAMES)[0] == [0, 2, 1]


def test_what_a_line_of_points_cannot_say_is_told(tmp_path):
    whole = [1, 2, 2, 3, 4, 1, 0, 0, 0]
    square = [[5, 6, 25, 6, 25, 16, 5, 16]]
    document = coco_poses(whole, whole[:6], [*whole, 5, 5, 2], ['x'], None, [])
    document['annotations'][0]['segmentation'] = square
    scheme, lost = point_scheme([coco_poses(whole)]), Lost()
    write_yolo(document, tmp_path, 'train', ['person'], scheme=scheme, lost=lost)
    text = (tmp_path / 'labels' / 'train' / 'a.txt').read_text()
    lines = [line.split() for line in text.splitlines()]
    assert {len(line) for line in lines} == {5 + 9}
    assert lines[1][5:] == lines[2][5:] == lines[0][5:]
    assert lines[3][5:] == lines[4][5:] == lines[5][5:] == ['0'] * 9
    assert dict(lost.counts) == {
        'masks of objects with points: written as boxes': 1,
        'objects of other than 3 points: cut or filled up': 2,
        'objects whose points are no numbers: written with absent ones': 1,
        'objects without points: written with absent ones': 2,
    }


def test_sides_are_written_only_if_all_classes_agree(tmp_path, convert):
    document = coco_poses([1, 2, 2, 3, 4, 1, 0, 0, 0])
    other = dict(id=2, name='dog', keypoints=['left_a', 'right_a', 'b', 'c'])
    document['categories'].append(other)
    assert point_scheme([document]).swap is None
    draw(tmp_path / 'one', names=('a',))
    write(tmp_path / 'one' / 'train.json', json.dumps(document))
    code, said = convert(tmp_path / 'one', tmp_path / 'two')
    assert code == 0 and 'it has no flip_idx' in said
    assert 'flip_idx' not in (tmp_path / 'two' / 'data.yaml').read_text()
    for stated in ([1, 0, 3, 2], [0, 2, 1]):  # by one class, and done to both
        other['flip_indices'] = stated
        assert point_scheme([document]).swap is None
    for category in document['categories']:
        category['flip_indices'] = [1, 0, 3, 2]
    assert point_scheme([document]).swap == [1, 0, 3, 2]


@pytest.mark.parametrize('value', [5, 'x', {}, [None], [['x']], [10**400]], ids=type)
def test_what_is_malformed_is_converted_as_nothing(tmp_path, convert, value):
    document = coco_poses([1, 2, 2, 3, 4, 1, 0, 0, 0], value, None)
    junk = dict(keypoints=value, skeleton=value, flip_indices=value)
    document['categories'] += [dict(junk, id=2, name='dog'), junk]
    draw(tmp_path / 'one', names=('a',))
    write(tmp_path / 'one' / 'train.json', json.dumps(document))
    code, said = convert(tmp_path / 'one', tmp_path / 'two')
    assert code == 0 and 'points' in said
    text = (tmp_path / 'two' / 'labels' / 'train' / 'a.txt').read_text()
    assert [line.split()[5:] for line in text.splitlines()][1:] == [['0'] * 9] * 2
    assert len(read_yolo(str(tmp_path / 'two' / 'data.yaml'), 'train')['images']) == 1


def test_without_points_there_are_none_in_the_labels(tmp_path):
    document = coco_poses(None)
    document['categories'] = [dict(id=1, name='person')]
    assert point_scheme([document]) is None
    document['annotations'][0]['keypoints'] = [1, 2, 2]
    lost = write_yolo(document, tmp_path, 'train', ['person'])
    assert dict(lost.counts) == {'objects with "keypoints": written without it': 1}
