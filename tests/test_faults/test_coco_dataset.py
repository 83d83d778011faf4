"""The data set on annotations and files as they really are, and its table."""

import json
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from PIL import Image

from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.faults import coco_dataset as coco
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import DOCUMENT, PIPELINE, build, document, picture, write


@pytest.fixture
def told(monkeypatch):
    """What the data set logs: (text, level)."""
    lines = []
    monkeypatch.setattr(
        coco, 'print_log', lambda text, logger, level: lines.append((text, level))
    )
    return lines


def row(told, finding):
    """The line of the table about ``finding``: (count, rest)."""
    ((table, _),) = told
    (line,) = [line for line in table.splitlines() if finding.what in line]
    count, rest = line.split(maxsplit=1)
    assert finding.done in rest
    return int(count), rest


def names(dataset):
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return [info['img_path'].rpartition('/')[2] for info in infos]


def boxes(dataset, index):
    return [item['bbox'] for item in dataset.get_data_info(index)['instances']]


def test_sound_data_has_no_findings(tmp_path, told):
    assert build(write(tmp_path), check_images=True).findings.counts == {}
    assert told == []


def test_every_fault_of_objects_is_counted(tmp_path, told):
    data = document()
    sound = data['annotations'][0]
    data['annotations'] += [
        dict(sound, id=100, bbox=[5, 5, 0, 7]),
        dict(sound, id=101, bbox=[5, 5, -3, 7]),
        dict(sound, id=102, bbox=[61, 5, 10, 10]),
        dict(sound, id=103, bbox=[50, 30, 20, 20]),
        dict(sound, id=104, bbox=[59.5, 0, 1, 1]),
        dict(sound, id=105, bbox=[1, 2, float('nan'), 4]),
        dict(sound, id=106, bbox=[1, 2, float('inf'), 4]),
        dict(sound, id=107, bbox=[1, 2, 3]),
        dict(sound, id=108, bbox='1 2 3 4'),
        dict(sound, id=109, bbox=[1, 2, None, 4]),
        {key: value for key, value in sound.items() if key != 'bbox'},
        {key: value for key, value in sound.items() if key != 'category_id'},
        'no annotation',
        dict(sound, id=110, bbox=['1', '2', '3.5', '4']),
        dict(sound, id=111, image_id=4711),
        dict(sound, id=112, category_id=0),
        dict(sound, id=9),
        dict(sound, id=113, bbox=[3, 3, 0.5, 0.25]),
        dict(sound, id=114, iscrowd=1, bbox=[1, 1, 2, 2]),
        dict(sound, id=115, segmentation=[[1, 1, 2, 2], [1, 1, 5, 1, 5, 5]]),
        dict(sound, id=116, segmentation=dict(size=[40, 60])),
        dict(sound, id=117, segmentation=dict(size=[60, 40], counts='abc')),
        dict(sound, id=118, ignore=1),
        dict(sound, id=119, segmentation=[[1, 1, None, 1, 5, 5], 'text']),
    ]
    dataset = build(write(tmp_path, data))
    counts = {
        Finding.BOX_EMPTY: 2,
        Finding.BOX_OUTSIDE: 1,
        Finding.BOX_OVER_BORDER: 1,
        Finding.OBJECT_BROKEN: 7,
        Finding.TEXT_NUMBER: 1,
        Finding.UNKNOWN_IMAGE: 1,
        Finding.UNKNOWN_CATEGORY: 2,
        Finding.OBJECT_TWICE: 1,
        Finding.CROWD: 1,
        Finding.IGNORED: 1,
        Finding.POLYGON_BROKEN: 3,
        Finding.MASK_BROKEN: 2,
    }
    assert {kind: row(told, kind)[0] for kind in counts} == counts
    ((table, level),) = told
    assert level == logging.WARNING
    assert len(table.splitlines()) == 2 + len(counts)
    assert 'object 111 of image 4711' in row(told, Finding.UNKNOWN_IMAGE)[1]
    assert boxes(dataset, 0) == [
        [5, 6, 25, 16],
        [0, 0, 60, 40],
        [50, 30, 60, 40],
        [59.5, 0, 60, 1],
        [1, 2, 4.5, 6],
        [5, 6, 25, 16],
        [3, 3, 3.5, 3.25],
        [1, 1, 3, 3],
        *[[5, 6, 25, 16]] * 5,
    ]
    sample = dataset[0]['data_samples']
    assert len(sample.gt_instances) == 11
    assert len(sample.ignored_instances) == 2  # the crowd, and what is to be ignored


@pytest.mark.parametrize('mark', [1, '1', True, 1.0, 'true', '0', 0, False, None, 'no'])
@pytest.mark.parametrize('key', ['ignore', 'iscrowd'])
def test_marks_of_objects_are_numbers_also_as_text(tmp_path, told, key, mark):
    data = document()
    data['annotations'][0][key] = mark
    dataset = build(write(tmp_path, data), pipeline=[])
    is_marked = mark in (1, '1', 'true')
    assert dataset.object_counts == [2 - is_marked, 1, 1]
    kind = Finding.IGNORED if key == 'ignore' else Finding.CROWD
    assert dict(dataset.findings.counts) == ({kind: 1} if is_marked else {})
    assert dataset.findings.faults == 0


@pytest.mark.parametrize('key', ['bbox', 'segmentation'])
def test_fractions_of_the_image_are_a_finding(tmp_path, told, key):
    data = document()
    for annotation in data['annotations']:
        box, size = annotation['bbox'], (60, 40) * 2
        box = [value / side for value, side in zip(box, size, strict=True)]
        annotation[key] = box if key == 'bbox' else [[*box, 0.5, 0.7]]
    dataset = build(write(tmp_path, data))
    # One box is as large as its image, and a whole number.
    assert dict(dataset.findings.counts) == {Finding.FRACTIONS: 4}
    count, line = row(told, Finding.FRACTIONS)
    assert count == 4
    assert 'multiply them by its width and height' in line


def test_boxes_that_are_all_as_large_as_the_image_may_be_fractions(tmp_path, told):
    data = document()
    for annotation in data['annotations']:
        annotation.update(bbox=[0, 0, 1, 1], segmentation=[])
    findings = build(write(tmp_path, data)).findings
    assert dict(findings.counts) == {Finding.FRACTIONS: 4}


def test_a_pixel_in_the_corner_is_no_fraction(tmp_path, told):
    data = document()
    data['annotations'][0].update(bbox=[0, 0, 1, 1], segmentation=[])
    data['annotations'][1].update(bbox=[1.0, 0.0, 1.0, 1.0])
    assert build(write(tmp_path, data)).findings.counts == {}


def test_every_fault_of_images_is_counted(tmp_path, told):
    data = document()
    sound = data['images'][0]
    extra = [
        dict(file_name='a.jpg', height=4, width=4),
        dict(id=200, height=4, width=4),
        'no image',
        dict(sound),
        dict(sound, id=201, file_name='missing.jpg'),
        dict(sound, id=202, file_name='empty.jpg'),
        dict(sound, id=203, file_name='text.jpg'),
        dict(sound, id=204, file_name='huge.png'),
        dict(id=205, file_name='b.jpg'),
        dict(id=206, file_name='b.jpg', height=41, width=59),
        dict(id=207, file_name='b.jpg', height=600, width=400),
        dict(id=208, file_name='x.jpg', height=40, width=60),
        dict(id=208, file_name='y.jpg', height=40, width=60),
    ]
    data['images'] += extra
    outside = dict(id=77, image_id=207, category_id=17, bbox=[300, 500, 50, 50])
    data['annotations'].append(outside)
    write(tmp_path, data)
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'text.jpg').write_text('not a picture')
    (tmp_path / 'huge.png').write_bytes(bomb(60000, 60000))
    dataset = build(tmp_path)
    counts = {
        Finding.IMAGE_BROKEN: 3,
        Finding.IMAGE_REPEATED: 1,
        Finding.IMAGE_TWICE: 1,
        Finding.FILE_MISSING: 1,
        Finding.FILE_EMPTY: 1,
        Finding.FILE_UNREADABLE: 1,
        Finding.FILE_HUGE: 1,
        Finding.SIZE_MISSING: 1,
        Finding.SIZE_WRONG: 1,
        Finding.BOXES_OF_OTHER_SIZE: 1,
        Finding.NO_OBJECTS: 2,
    }
    assert {kind: row(told, kind)[0] for kind in counts} == counts
    assert names(dataset) == ['a.jpg', 'b.jpg', 'c.jpg', 'b.jpg', 'b.jpg']
    infos = [dataset.get_data_info(index) for index in (3, 4)]
    assert [(info['height'], info['width']) for info in infos] == [(60, 40)] * 2


def test_a_file_name_can_be_too_long(tmp_path, told):
    data = document()
    data['images'][0]['file_name'] = 'a' * 300 + '.jpg'
    assert names(build(write(tmp_path, data))) == ['b.jpg', 'c.jpg']
    assert row(told, Finding.FILE_UNREADABLE)[0] == 1


@pytest.mark.parametrize(
    'listed, real',
    [
        ('sub\\a.jpg', 'sub/a.jpg'),
        ('.\\sub\\a.jpg', 'sub/a.jpg'),
        ('sub%2Fa%20b.jpg', 'sub/a b.jpg'),
        ('sub\\a%20b.jpg', 'sub/a b.jpg'),
        ('sub%5Ca%20b.jpg', 'sub/a b.jpg'),
        ('sub\\100%.jpg', 'sub/100%.jpg'),
        ('gr%C3%BCn.jpg', 'grün.jpg'),
    ],
)
@pytest.mark.parametrize('check_images', [True, False])
def test_names_of_other_systems_are_read(tmp_path, told, listed, real, check_images):
    data = document()
    data['images'][0]['file_name'] = listed
    write(tmp_path, data)
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'a.jpg').rename(tmp_path / real)
    dataset = build(tmp_path, check_images=check_images)
    assert f'{listed} is ' in row(told, Finding.NAME_ESCAPED)[1]
    assert dataset[0] is not None
    assert Path(dataset.get_data_info(0)['img_path']) == tmp_path / real


@pytest.mark.parametrize('name', ['a%20b.jpg', 'a\\b.jpg', '50%.jpg'])
def test_a_file_that_has_an_odd_name_is_taken(tmp_path, told, name):
    data = document()
    data['images'][0]['file_name'] = name
    write(tmp_path, data)
    (tmp_path / 'a.jpg').rename(tmp_path / name)
    picture(40, 60).save(tmp_path / 'a b.jpg')
    assert Path(build(tmp_path).get_data_info(0)['img_path']).name == name
    assert told == []


def bomb(width, height):
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind, content):
        checksum = struct.pack('>I', zlib.crc32(kind + content))
        return struct.pack('>I', len(content)) + kind + content + checksum

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b'IDAT', zlib.compress(b'\0' * 1000))
    return b'\x89PNG\r\n\x1a\n' + header + pixels + chunk(b'IEND', b'')


def test_images_without_objects_are_kept_and_told_as_a_note(tmp_path, told):
    data = document()
    data['annotations'] = data['annotations'][:1]
    dataset = build(write(tmp_path, data))
    assert len(dataset) == 3
    assert row(told, Finding.NO_OBJECTS)[0] == 2
    assert told[0][1] == logging.INFO
    assert len(dataset[1]['data_samples'].gt_instances) == 0


def test_numbers_of_ids_may_be_text(tmp_path, told):
    data = document()
    for annotation in data['annotations']:
        annotation['image_id'] = str(annotation['image_id'])
        annotation['category_id'] = float(annotation['category_id'])
    dataset = build(write(tmp_path, data))
    assert [len(boxes(dataset, index)) for index in range(3)] == [2, 1, 1]
    assert told == []


def test_ids_of_another_spelling_are_other_ids(tmp_path, told):
    """Of images, of categories and of objects."""
    data = document()
    data['images'] = [
        dict(id=key, file_name=name, height=40, width=60)
        for key, name in (('1', 'a.jpg'), ('01', 'b.jpg'), ('001', 'c.jpg'))
    ]
    for category, key in zip(data['categories'], ('7', '07'), strict=True):
        category['id'] = key
    data['annotations'] = [
        dict(id=str(n), image_id=image, category_id=category, bbox=[n, 1, 9, 9])
        for n, (image, category) in enumerate(
            [('1', '7'), (1, 7), ('01', '07'), ('001', '07')]
        )
    ]
    data['annotations'][3]['id'] = '02'  # beside '2'
    dataset = build(write(tmp_path, data))
    assert labels(dataset) == {
        'a.jpg': ['cat', 'cat'],
        'b.jpg': ['dog'],
        'c.jpg': ['dog'],
    }
    assert [dataset.get_data_info(i)['img_id'] for i in range(3)] == ['1', '01', '001']
    assert dataset.cat_ids == ['7', '07']
    assert Finding.OBJECT_TWICE not in dataset.findings.counts


@pytest.mark.parametrize('key', [5, '5', 'x', 5.0])
def test_an_object_id_that_is_repeated_is_counted(tmp_path, told, key):
    data = document()
    for annotation in data['annotations'][:3]:
        annotation['id'] = key
    dataset = build(write(tmp_path, data))
    assert row(told, Finding.OBJECT_TWICE)[0] == 2
    assert sum(dataset.object_counts) == 4


def test_categories_that_nobody_asked_for_are_left_out(tmp_path, told):
    dataset = build(write(tmp_path), metainfo=dict(classes=('dog',)))
    assert row(told, Finding.UNUSED_CATEGORY)[0] == 2
    labels = [
        item['bbox_label']
        for index in range(3)
        for item in dataset.get_data_info(index)['instances']
    ]
    assert labels == [0, 0]


def labels(dataset):
    """File name to the names of its objects."""
    classes = dataset.metainfo['classes']
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {
        Path(info['img_path']).name: [
            classes[instance['bbox_label']] for instance in info['instances']
        ]
        for info in infos
    }


def grouped(*, others):
    """The sound document under a root that is named as one of its classes."""
    data = document()
    for category in data['categories']:
        category['supercategory'] = 'dog'
    data['categories'].insert(0, dict(id=0, name='dog', **others))
    return data


@pytest.mark.parametrize('others', [{}, dict(supercategory='none')])
@pytest.mark.parametrize('objects', [True, False])
def test_a_grouping_category_is_left_out(tmp_path, told, others, objects):
    data = grouped(others=others)
    if not objects:  # as a test set has none
        data['annotations'] = []
    dataset = build(write(tmp_path, data), bad_data='error')
    assert dataset.cat_ids == [17, 90]
    assert 'category 0 (dog)' in row(told, Finding.GROUPING_CATEGORY)[1]


@pytest.mark.parametrize('objects', [True, False])
def test_groups_within_groups_are_left_out(tmp_path, told, objects):
    """The class may lie deeper than right below the root of its name."""
    data = document()
    for category in data['categories']:
        category['supercategory'] = 'pets'
    data['categories'] += [
        dict(id=0, name='dog', supercategory='none'),
        dict(id=1, name='dog', supercategory='dog'),
        dict(id=2, name='pets', supercategory='dog'),
    ]
    if not objects:
        data['annotations'] = []
        data['categories'] = data['categories'][::-1]
    assert build(write(tmp_path, data), bad_data='error').cat_ids == [17, 90]
    assert row(told, Finding.GROUPING_CATEGORY)[0] == 2


def test_a_grouping_category_with_objects_is_ambiguous(tmp_path):
    data = grouped(others=dict(supercategory='none'))
    data['annotations'][0]['category_id'] = 0
    with pytest.raises(BadDataError, match='entry 2 has none, or one used before'):
        build(write(tmp_path, data))


@pytest.mark.parametrize(
    'odd',
    [
        dict(id=17, name='bird'),
        dict(id='17', name='bird'),
        dict(id=5, name='dog'),
        dict(id=5),
        dict(id=5, name=None),
        dict(name='bird'),
        dict(id=[5], name='bird'),
        'bird',
    ],
)
@pytest.mark.parametrize('reader', ['dataset', 'metric'])
def test_ambiguous_categories_are_an_error(tmp_path, odd, reader):
    data = document()
    data['categories'].append(odd)
    write(tmp_path, data)
    with pytest.raises(BadDataError, match=r'annotations\.json .* entry 2 ') as error:
        if reader == 'dataset':
            build(tmp_path)
        else:
            path = str(tmp_path / 'annotations.json')
            METRICS.build(dict(type='RFDETRCocoMetric', ann_file=path))
    assert odd == 'bird' or repr(odd) in str(error.value)


def test_a_wrong_image_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='None of the 3 images .*data_prefix'):
        build(write(tmp_path), data_prefix=dict(img='pictures/'))


def test_paths_of_another_machine_are_named(tmp_path):
    data = document()
    for image in data['images']:
        image['file_name'] = f'C:\\data\\{image["file_name"]}'
    with pytest.raises(FileNotFoundError, match=f'write paths below {tmp_path}/ into'):
        build(write(tmp_path, data))


def test_nothing_left_is_an_error(tmp_path):
    data = dict(document(), images=[], annotations=[])
    with pytest.raises(BadDataError, match='None of the 0 images'):
        build(write(tmp_path, data))


def test_the_policy_error_stops_at_any_fault(tmp_path):
    data = document()
    data['annotations'][0]['bbox'] = [1, 1, 0, 0]
    with pytest.raises(BadDataError, match='box of zero area(.|\n)*Repair these'):
        build(write(tmp_path, data), bad_data='error')


def test_the_policy_error_lets_notes_pass(tmp_path):
    data = document()
    data['annotations'][0]['iscrowd'] = 1
    del data['annotations'][1]
    assert len(build(write(tmp_path, data), bad_data='error')) == 3


def test_an_unknown_policy_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="bad_data='warn'"):
        build(write(tmp_path), bad_data='warn')


def cut(path):
    """Leave the header and the first half of the pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_a_file_cut_off_is_skipped_in_training(tmp_path):
    dataset = build(write(tmp_path))
    cut(tmp_path / 'b.jpg')
    shapes = {dataset[1]['data_samples'].img_path.rpartition('/')[2] for _ in range(9)}
    assert shapes == {'a.jpg', 'c.jpg'}
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_cut_off_is_black_in_evaluation(tmp_path):
    dataset = build(write(tmp_path), test_mode=True)
    cut(tmp_path / 'b.jpg')
    item = dataset[1]
    assert item['inputs'].shape == (3, 32, 32)
    assert item['inputs'].max() == 0
    assert item['data_samples'].ori_shape == (60, 40)
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_cut_off_stops_under_the_policy_error(tmp_path):
    dataset = build(write(tmp_path), bad_data='error')
    cut(tmp_path / 'b.jpg')
    with pytest.raises(BadDataError, match='b.jpg.*bad_data'):
        dataset[1]


def test_a_file_that_goes_missing_is_skipped(tmp_path):
    dataset = build(write(tmp_path))
    (tmp_path / 'c.jpg').unlink()
    assert dataset[2] is not None
    assert dataset.unreadable.tolist() == [False, False, True]


def test_faults_of_the_pipeline_are_not_taken_for_bad_data(tmp_path):
    def broken(results):
        raise OSError('a bug')

    dataset = build(write(tmp_path), pipeline=[PIPELINE[0], broken])
    with pytest.raises(OSError, match='a bug'):
        dataset[0]


@pytest.mark.parametrize(
    'start_method', ['fork', pytest.param('spawn', marks=pytest.mark.long)]
)
def test_workers_share_what_they_find(tmp_path, start_method):
    dataset = build(write(tmp_path))
    cut(tmp_path / 'a.jpg')
    loader = torch.utils.data.DataLoader(
        dataset,
        num_workers=1,
        collate_fn=len,
        multiprocessing_context=start_method,
    )
    list(loader)
    assert dataset.unreadable.tolist() == [True, False, False]


def test_subsets_know_their_broken_files(tmp_path):
    dataset = build(write(tmp_path), indices=[2])
    cut(tmp_path / 'c.jpg')
    dataset.prepare_data(0)
    assert dataset.unreadable.tolist() == [False, False, True]
    assert len(build(tmp_path).get_subset([1, 0])) == 2


def test_a_run_reports_broken_files_at_the_end_of_an_epoch(tmp_path, monkeypatch):
    from mmdet_rfdetr.faults import bad_data_hook

    lines = []
    monkeypatch.setattr(
        bad_data_hook, 'print_log', lambda text, **kwargs: lines.append(text)
    )
    dataset = build(write(tmp_path))
    repeated = DATASETS.build(dict(type='RepeatDataset', dataset=dataset, times=2))
    cut(tmp_path / 'b.jpg')
    cut(tmp_path / 'c.jpg')

    class FakeRunner:
        class train_dataloader:
            dataset = repeated

    hook = bad_data_hook.RFDETRBadDataHook()
    hook.after_train_epoch(FakeRunner)
    assert lines == []
    dataset[1], dataset[2]
    hook.after_train_epoch(FakeRunner)
    hook.after_train_epoch(FakeRunner)
    (line,) = lines
    assert line.startswith('2 of 3 images could not be read and were skipped')
    assert str(tmp_path / 'b.jpg') in line


def test_a_wrong_extension_does_not_matter(tmp_path, told):
    folder = write(tmp_path)
    picture(40, 60).save(folder / 'a.jpg', 'png')
    assert names(build(folder)) == ['a.jpg', 'b.jpg', 'c.jpg']
    assert told == []


def test_files_are_not_looked_at_on_request(tmp_path, told):
    folder = write(tmp_path)
    (folder / 'a.jpg').unlink()
    dataset = build(folder, check_images=False)
    assert len(dataset) == 3
    assert told == []
    assert dataset.prepare_data(0) is None


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
def test_a_loader_of_other_pixels_than_the_official_is_logged(
    tmp_path, told, color_type
):
    load = dict(type='LoadImageFromFile', color_type=color_type)
    build(write(tmp_path), pipeline=[load])
    texts = [text for text, _ in told if 'RFDETRLoadImage' in text]
    assert len(texts) == (color_type == 'color')


UNCHANGED = dict(type='LoadImageFromFile', color_type='unchanged')


def four_channels(folder):
    """The sound document with images that only ``unchanged`` reads as they are."""
    write(folder)
    for image in DOCUMENT['images']:
        size = image['height'], image['width']
        pixels = np.random.RandomState(0).randint(256, size=(*size, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image['file_name'], 'png')
    return folder


def test_a_loader_of_the_user_stays(tmp_path):
    item = build(four_channels(tmp_path), pipeline=[UNCHANGED])[0]
    with Image.open(tmp_path / 'a.jpg') as image:
        expected = np.asarray(image)[:, :, [2, 1, 0, 3]]
    np.testing.assert_array_equal(item['img'], expected)


def become_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(
    'damage',
    [cut, Path.unlink, lambda path: path.write_bytes(b''), become_pipe],
    ids=['cut', 'missing', 'empty', 'pipe'],
)
def test_a_broken_file_is_skipped_by_a_loader_of_the_user(tmp_path, damage, backend):
    load = dict(UNCHANGED, imdecode_backend=backend)
    dataset = build(four_channels(tmp_path), pipeline=[load])
    damage(tmp_path / 'b.jpg')
    assert dataset.prepare_data(1) is None
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_file_that_a_loader_cannot_decode_is_skipped(tmp_path):
    dataset = build(four_channels(tmp_path), pipeline=[UNCHANGED])
    path = tmp_path / 'b.jpg'
    with Image.open(path) as image:
        image.save(path, 'tga')  # which Pillow reads and OpenCV does not
    assert dataset.prepare_data(1) is None
    assert dataset.unreadable.tolist() == [False, True, False]


def test_a_broken_file_is_black_like_the_others(tmp_path):
    pipeline = [dict(UNCHANGED, to_float32=True)]
    dataset = build(four_channels(tmp_path), pipeline=pipeline, test_mode=True)
    cut(tmp_path / 'a.jpg')
    cut(tmp_path / 'b.jpg')
    black = dataset[1]['img']
    assert black.shape == (60, 40, 4)
    assert black.dtype == np.float32
    assert black.max() == 0


def test_a_loader_that_reads_nothing_is_named(tmp_path):
    dataset = build(four_channels(tmp_path), pipeline=[UNCHANGED], test_mode=True)
    for image in DOCUMENT['images']:
        cut(tmp_path / image['file_name'])
    with pytest.raises(BadDataError, match='nor any other image .*unchanged'):
        dataset[1]


def test_a_wrong_argument_of_a_loader_is_not_taken_for_bad_data(tmp_path):
    load = dict(UNCHANGED, imdecode_backend='tiff')
    dataset = build(four_channels(tmp_path), pipeline=[load])
    with pytest.raises(ValueError, match='backend: tiff is not supported'):
        dataset[1]


@pytest.mark.parametrize(
    'content, message',
    [
        (json.dumps(DOCUMENT)[:-200], 'cut off or not JSON'),
        ('', 'cut off or not JSON'),
        ('[]', "no list 'images'"),
        ('{"images": [], "annotations": {}}', "no list 'annotations'.*format_only"),
        ('{"annotations": []}', "no list 'images', .*: convert it"),
        ('{"images": [], "annotations": [], "categories": []}', 'lack'),
    ],
)
def test_a_file_that_is_no_coco_data_is_named(tmp_path, content, message):
    with pytest.raises(BadDataError, match=message) as error:
        build(write(tmp_path, content))
    assert str(tmp_path / 'annotations.json') in str(error.value)


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='set data_root and ann_file'):
        build(tmp_path)


@pytest.mark.parametrize('files', [['a.json', 'b.json'], 3])
def test_an_annotation_file_is_one_path(files):
    with pytest.raises(SettingError, match='one file.*MultiDatasetsEvaluator'):
        METRICS.build(dict(type='RFDETRCocoMetric', ann_file=files))


def test_a_file_of_classes_in_another_encoding_is_named(tmp_path):
    (tmp_path / 'names.txt').write_bytes(b'caf\xe9')
    with pytest.raises(SettingError, match='UTF-8'):
        build(write(tmp_path), metainfo=dict(classes=str(tmp_path / 'names.txt')))
