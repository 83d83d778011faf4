"""The data set on annotations and files as they really are, and its table."""

import json
import logging
import struct
import zlib
from pathlib import Path

import pytest
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError, SettingError
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import DOCUMENT, build, document, picture, write
from tests.test_faults.looks import labels, row


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
