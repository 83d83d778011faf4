"""Points from the file to the batch, as the official package reads them."""

import json

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.registry import init_default_scope
from rfdetr_convert import write_coco
from rfdetr_datasets import find_dataset
from rfdetr_datasets.points import points_of_categories, swapped_names

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.keypoints.annotated_points import complete_metainfo
from mmdet_rfdetr.keypoints.schema import Schema
from tests.fixtures import FIXTURES, needs_fixtures
from tests.test_keypoints.data import (
    LOAD,
    NAMES,
    OBJECT,
    PACK,
    PERSON,
    dataset,
    objects,
    write,
)


@pytest.fixture(autouse=True, scope='module')
def scope():
    init_default_scope('mmdet')


def test_yolo_poses_are_read_as_they_lie_and_as_they_are_converted(tmp_path):
    """Points outside and of other visibility are in the table, by file and line."""
    names = 'names: [person]\nkpt_shape: [3, 3]\n'
    line = '0 0.5 0.5 0.5 0.75 0.5 0.2 2 0.25 0.5 1 0.75 0.5 2\n'
    wrong = '0 0.5 0.5 0.5 0.75 0.5 1.2 2 0.25 0.5 3 0.75 0.5 2\n'
    folder = tmp_path / 'yolo'
    (folder / 'images' / 'train').mkdir(parents=True)
    write(folder / 'images' / 'train', [])
    (folder / 'images' / 'train' / 'a.txt').write_text(line + wrong)
    settings = folder / 'data.yaml'
    settings.write_text(f'train: images/train\n{names}flip_idx: [0, 2, 1]\n')
    document = find_dataset(folder).splits['train'].document()
    write_coco(document, tmp_path / 'a.json')
    found = []
    for source in (f'{settings}#train', str(tmp_path / 'a.json')):
        data = DATASETS.build(
            dict(
                type='RFDETRCocoKeypointDataset',
                ann_file=source,
                data_root=f'{folder}/',
                data_prefix=dict(img=''),
                metainfo=dict(classes=('person',)),
                pipeline=[dict(type='RFDETRLoadImage'), LOAD, PACK],
            )
        )
        assert data.metainfo['flip_indices'] == [0, 2, 1]
        assert {kind.name for kind in data.findings.counts} == {'OUTSIDE', 'VISIBILITY'}
        found.append(objects(data))
    for each in found:
        assert each.keypoints[0].tolist() == [[30, 8], [15, 20], [45, 20]]
        assert each.keypoints_visible.tolist() == [[2, 1, 2], [0, 2, 2]]


def test_points_come_with_their_objects(tmp_path):
    found = objects(dataset(write(tmp_path, [PERSON, OBJECT])))
    assert found.keypoints.tolist() == [
        [[20, 8], [12, 20], [38, 21]],
        [[0, 0], [0, 0], [0, 0]],
    ]
    assert found.keypoints_visible.tolist() == [[2, 1, 2], [0, 0, 0]]
    assert found.bboxes.tensor.tolist() == [[10, 5, 40, 35], [2, 2, 8, 8]]


def test_what_the_file_says_joins_the_metainfo(tmp_path):
    metainfo = dataset(write(tmp_path, [PERSON])).metainfo
    assert metainfo['num_keypoints'] == [3]
    assert metainfo['flip_indices'] == [0, 2, 1]
    assert [part['name'] for part in metainfo['keypoint_info'].values()] == NAMES


def test_exports_of_annotation_platforms_have_a_category_that_groups_others(tmp_path):
    categories = [
        dict(id=0, name='people', supercategory='none'),
        dict(
            id=1,
            name='person',
            supercategory='people',
            keypoints=NAMES,
            skeleton=[[1, 2], [3, 1]],
        ),
    ]
    metainfo = dataset(write(tmp_path, [PERSON], categories)).metainfo
    assert metainfo['num_keypoints'] == [3]
    links = [line['link'] for line in metainfo['skeleton_info'].values()]
    assert links == [('nose', 'left_hand'), ('right_hand', 'nose')]


def test_the_metainfo_of_mmpose_is_read_as_it_is(tmp_path):
    swaps = dict(tip='', a='b', b='a')
    info = {
        i: dict(name=name, id=i, color=[0, 0, 0], type='upper', swap=swap)
        for i, (name, swap) in enumerate(swaps.items())
    }
    links = {0: dict(link=('tip', 'a'), id=0, color=[0, 0, 0])}
    data = dataset(
        write(tmp_path, [PERSON], [dict(id=1, name='person')]),
        keypoint_info=info,
        skeleton_info=links,
        sigmas=[0.1, 0.2, 0.3],
    )
    assert data.metainfo['flip_indices'] == [0, 2, 1]
    assert data.metainfo['skeleton_info'] == links
    assert data.metainfo['sigmas'] == [0.1, 0.2, 0.3]


def test_the_metainfo_wins_over_the_file(tmp_path):
    category = dict(id=1, name='person', keypoints=NAMES, flip_indices=[0, 1, 2])
    folder = write(tmp_path, [PERSON], [category])
    assert dataset(folder).metainfo['flip_indices'] == [0, 1, 2]
    info = {i: dict(name=name, id=i) for i, name in enumerate(NAMES)}
    info[1]['swap'], info[2]['swap'] = NAMES[2], NAMES[1]
    found = dataset(folder, keypoint_info=info).metainfo
    assert found['flip_indices'] == [0, 2, 1]
    assert dataset(folder, flip_indices=[2, 1, 0]).metainfo['flip_indices'] == [2, 1, 0]


def test_a_file_of_mmpose_is_read(tmp_path):
    path = tmp_path / 'points.py'
    path.write_text("""
dataset_info = dict(
    dataset_name='mine',
    paper_info=dict(title='none'),
    keypoint_info={
        0: dict(name='tip', id=0, color=[0, 9, 0], type='upper', swap=''),
        1: dict(name='a', id=1, color=[0, 0, 9], type='lower', swap='b'),
        2: dict(name='b', id=2, color=[9, 0, 0], type='lower', swap='a'),
    },
    skeleton_info={0: dict(link=('tip', 'a'), id=0, color=[9, 9, 9])},
    joint_weights=[1.0, 1.0, 1.5],
    sigmas=[0.1, 0.2, 0.3],
)
""")
    folder = write(tmp_path / 'data', [PERSON], [dict(id=1, name='person')])
    found = dataset(folder, from_file=str(path)).metainfo
    assert found['flip_indices'] == [0, 2, 1] and found['sigmas'] == [0.1, 0.2, 0.3]
    assert found['keypoint_info'][0]['color'] == [0, 9, 0]
    assert found['classes'] == ('person',)
    assert dataset(folder, from_file=str(path), sigmas=[1, 1, 1]).metainfo[
        'sigmas'
    ] == [
        1,
        1,
        1,
    ]
    path.write_text('points = 3')
    with pytest.raises(SettingError, match='has no dict dataset_info'):
        dataset(folder, from_file=str(path))


def test_lines_and_sides_are_those_of_the_classes_that_are_learnt(tmp_path):
    categories = [
        dict(
            id=2,
            name='dog',
            keypoints=[*'abcd'],
            skeleton=[[1, 4], [2, 3]],
            flip_indices=[1, 0, 2, 3],
        ),
        dict(id=1, name='person', keypoints=NAMES, skeleton=[[1, 2]]),
    ]
    folder = write(tmp_path, [PERSON], categories)
    found = dataset(folder).metainfo
    links = [line['link'] for line in found['skeleton_info'].values()]
    assert links == [('nose', 'left_hand')] and found['flip_indices'] == [0, 2, 1]
    both = dataset(folder, classes=('person', 'dog')).metainfo
    links = [line['link'] for line in both['skeleton_info'].values()]
    assert links == [('a', 'd'), ('b', 'c')]
    assert both['flip_indices'] is None  # what the one states is not done to the other
    # Where that of fewer points comes first, and another class states no sides.
    categories = [dict(categories[1], flip_indices=[2, 1, 0]), categories[0]]
    del categories[1]['flip_indices']
    folder = write(tmp_path, [PERSON], categories)
    both = dataset(folder, classes=('person', 'dog')).metainfo
    links = [line['link'] for line in both['skeleton_info'].values()]
    assert links == [('a', 'd'), ('b', 'c')]
    assert dataset(folder).metainfo['flip_indices'] == [2, 1, 0]


@pytest.mark.parametrize(
    'metainfo',
    [
        dict(keypoint_info={0: 'tip'}),
        dict(keypoint_info=[dict(name='tip')]),
        dict(flip_indices=5),
        dict(flip_indices=[1, 2, 0]),
        dict(skeleton_info={0: dict(id=0)}),
        dict(skeleton_info={0: dict(link=('nose',))}),
        dict(skeleton_info=[[0, 1]]),
    ],
    ids=str,
)
def test_a_metainfo_of_another_form_is_refused(tmp_path, metainfo):
    (key,) = metainfo
    with pytest.raises(SettingError, match=key):
        dataset(write(tmp_path, [PERSON]), **metainfo)


def test_a_metainfo_that_names_no_point_is_refused(tmp_path):
    folder = write(tmp_path, [PERSON])
    links = {0: dict(link=('nose', 'right_foot'), id=0)}
    with pytest.raises(SettingError, match=r"link='right_foot' .* \['nose', "):
        dataset(folder, skeleton_info=links)
    info = {i: dict(name=name, id=i, swap='') for i, name in enumerate(NAMES)}
    info[1]['swap'] = 'right_foot'
    with pytest.raises(SettingError, match="swap='right_foot'"):
        dataset(folder, keypoint_info=info)


def test_a_metainfo_of_other_points_is_refused(tmp_path):
    info = {i: dict(name=str(i), id=i) for i in range(5)}
    with pytest.raises(SettingError, match=r'has 5 points .* \[3\]'):
        dataset(write(tmp_path, [PERSON]), keypoint_info=info)
    for wrong in ([1, 0], [0, 1, 1], [1, 2, 3]):
        with pytest.raises(SettingError, match='each number from 0 to 2 once'):
            dataset(write(tmp_path, [PERSON]), flip_indices=wrong)


def test_faults_of_points_are_in_the_table(tmp_path):
    points = [
        [20, 8, 2],
        [20, 8, 3, 12, 20, -1, 38, 21, 2],
        [20, 80, 2, 12, 20, 1, 38, 21, 2],
        [20, 'x', 2, 12, 20, 1, 38, 21, 2],
    ]
    categories = [
        dict(id=1, name='person', keypoints=['nose', 'left_hand', 'right_foot'])
    ]
    folder = write(tmp_path, [dict(PERSON, keypoints=p) for p in points], categories)
    data = dataset(folder)
    assert objects(data).keypoints_visible.tolist() == [
        [2, 0, 0],
        [2, 0, 2],
        [0, 1, 2],
        [0, 0, 0],
    ]
    counts = {kind.name: n for kind, n in data.findings.counts.items()}
    assert counts == dict(LENGTH=1, VISIBILITY=1, OUTSIDE=1, BROKEN=1, PARTNER=2)
    assert 'visibility is not 0, 1 or 2' in data.findings.table()


JUNK = [
    [10**400, 1, 2],
    5,
    'x',
    {},
    {'a': 1},
    [None],
    [[1]],
    [[1, 'x']],
    [[0, 1]],
    [1e400],
    [[1, 9]],
]
NAMED = {'ids': lambda value: str(value)[:20]}


@pytest.mark.parametrize('value', JUNK, **NAMED)
@pytest.mark.parametrize('key', ['keypoints', 'skeleton', 'flip_indices'])
def test_categories_that_are_malformed_end_in_a_sentence_or_are_passed_over(
    tmp_path, key, value
):
    category = dict(id=1, name='person', keypoints=NAMES)
    folder = write(tmp_path, [PERSON], [category | {key: value}])
    try:
        data = dataset(folder)
    except SettingError as error:
        assert key == 'flip_indices' and 'flip_indices' in str(error)
        return
    assert data.metainfo['skeleton_info'] == {}
    assert len(data[0]['data_samples'].gt_instances) == 1


@pytest.mark.parametrize('value', JUNK, **NAMED)
def test_points_that_are_malformed_leave_their_object_without(tmp_path, value):
    folder = write(tmp_path, [PERSON, dict(PERSON, keypoints=value)])
    found = objects(dataset(folder))
    assert found.keypoints_visible[0].any()
    assert not found.keypoints_visible[1].any()


def test_boxes_without_points_are_refused_with_what_to_do(tmp_path):
    folder = write(tmp_path, [PERSON])
    plain = dict(type='LoadAnnotations', with_bbox=True)
    with pytest.raises(SettingError, match='load with RFDETRLoadKeypoints'):
        dataset(folder, plain)[0]
    other = DATASETS.build(
        dict(
            type='RFDETRCocoDataset',
            ann_file=str(folder / 'a.json'),
            data_prefix=dict(img=str(folder)),
            metainfo=dict(classes=('person',)),
            pipeline=[dict(type='RFDETRLoadImage'), LOAD],
        )
    )
    with pytest.raises(SettingError, match='RFDETRCocoKeypointDataset'):
        other[0]


def test_other_numbers_of_points_than_the_head_has_are_refused():
    head = Schema((3, 0))
    for agreeing in ([3], [3, 0, 0], None):
        head.check_data(agreeing)
    with pytest.raises(SettingError, match=r'set it to \[0, 3\]'):
        head.check_data([0, 3])


def official():
    return json.loads((FIXTURES / 'keypoint' / 'small.json').read_text())


@needs_fixtures
def test_number_and_sides_are_those_of_the_official_package():
    for name, case in official()['schema'].items():
        if 'categories' not in case.get('input', ()):
            continue
        document = dict(dict(annotations=[]), **case['input'])
        points = points_of_categories(document['categories'], document['annotations'])
        ordered = sorted(document['categories'], key=lambda part: part['id'])
        classes = [part['name'] for part in ordered]
        if 'error' in case:
            with pytest.raises(SettingError, match='has points in the file'):
                complete_metainfo(dict(classes=classes), points)
            continue
        found = complete_metainfo(dict(classes=classes), points)
        assert found['num_keypoints'] == case['num_keypoints_per_class'], name
        swap, pairs = found['flip_indices'] or [], case['flip_pairs']
        assert [
            index for a, b in enumerate(swap) if a < b for index in (a, b)
        ] == pairs, name


@needs_fixtures
@pytest.mark.parametrize('kind', ['val96', 'flip', 'crop'])
def test_targets_are_those_of_the_official_package(tmp_path, kind):
    fixture, arrays = official(), np.load(FIXTURES / 'keypoint' / 'small.npz')
    names = 'abcd'
    categories = [
        dict(id=1, name='1', keypoints=[*names]),
        dict(id=2, name='2'),
        dict(id=3, name='3', keypoints=[*names[:2]]),
    ]
    annotations = [dict(x, image_id=1) for x in fixture['prep_annotations']]
    folder = write(tmp_path, annotations, categories, fixture['prep_image_shape'])
    top, left, height, width = fixture['prep_crop_top_left_height_width']
    data = dataset(folder, classes=('1', '2', '3'), flip_indices=[1, 0, 2, 3])
    info = data.get_data_info(0)
    loaded = TRANSFORMS.build(LOAD)(info)
    boxes = loaded['gt_bboxes'][np.array(loaded['gt_ignore_flags']) == 0]
    size = np.ones(2)
    if kind == 'val96':
        boxes.rescale_((96 / 250, 96 / 301))
        boxes.clip_((96, 96))
        size = np.array([96, 96])
    elif kind == 'flip':
        boxes.flip_((301, 250))
    elif kind == 'crop':
        boxes.translate_((-left, -top))
        boxes.clip_((height, width))
    points = boxes.points.numpy()
    points[..., :2] /= size
    wanted = arrays[f'prep_{kind}_keypoints']
    assert np.abs(points - wanted).max() < 1e-4


def test_names_of_sides():
    assert swapped_names(['Left Hand', 'right hand', 'Head'])[0] == [1, 0, 2]
    assert swapped_names(['l_eye', 'r_eye']) == (None, [])
    assert swapped_names(['left_a', 'nose']) == (None, ['left_a'])
    assert swapped_names(['left_a', 'left_a', 'right_a'])[0] is None
