"""What lies in a folder, and what is said where it is nothing or too much."""

import json
import sys
from pathlib import Path

import pytest
from rfdetr_datasets import DatasetError, find_dataset, image_root, kind_of, read

from tests.fixtures import DATA, needs_data
from tests.interpreter import run_code
from tests.test_datasets.folders import draw, fill, voc, write, xml, yolo

CAT = ('cat', 0, (5, 6, 15, 16))


def coco(*names, file='a.png', root=None):
    """A file of one image and a class for each name; ``root`` groups them."""
    categories = [
        dict(id=number, name=name, supercategory=root or 'none')
        for number, name in enumerate(names, start=1)
    ]
    if root:
        categories.insert(0, dict(id=0, name=root, supercategory='none'))
    annotation = dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 3, 4])
    image = dict(id=1, file_name=file, height=40, width=60)
    return json.dumps(
        dict(images=[image], annotations=[annotation], categories=categories)
    )


def summary(found):
    """Format, and of each split its file and images from the folder on."""
    return found.format, {
        name: (
            split.ann_file.removeprefix(found.path).lstrip('/'),
            len(split.document()['images']),
        )
        for name, split in found.splits.items()
    }


def check_images(found):
    for split in found.splits.values():
        names = [image['file_name'] for image in split.document()['images']]
        for name in names:
            assert Path(split.image_root, name).is_file()
        assert read(split.ann_file) == split.document()


def test_coco_with_a_folder_of_annotations(tmp_path):
    draw(tmp_path / 'train2017')
    draw(tmp_path / 'images' / 'val2017')
    names = ('instances_train2017', 'instances_val2017', 'captions_val2017')
    for name in names:
        write(tmp_path / 'annotations' / f'{name}.json', coco('cat', 'dog'))
    found = find_dataset(tmp_path)
    assert summary(found) == (
        'coco',
        {
            'train': ('annotations/instances_train2017.json', 1),
            'val': ('annotations/instances_val2017.json', 1),
        },
    )
    assert found.classes == ['cat', 'dog']
    assert found.dataset_type == 'RFDETRCocoDataset'
    check_images(found)


def test_an_export_with_a_file_in_each_folder(tmp_path):
    for name in ('train', 'valid', 'test'):
        draw(tmp_path / name)
        text = coco('cat', 'dog', root='my project')
        write(tmp_path / name / '_annotations.coco.json', text)
    found = find_dataset(tmp_path)
    assert summary(found)[1] == {
        'train': ('train/_annotations.coco.json', 1),
        'val': ('valid/_annotations.coco.json', 1),
        'test': ('test/_annotations.coco.json', 1),
    }
    assert found.classes == ['cat', 'dog']
    check_images(found)


def test_one_file_of_any_name_is_for_training(tmp_path):
    draw(tmp_path / 'pictures')
    write(tmp_path / 'result.json', coco('cat'))
    write(tmp_path / 'package.json', '{"name": "other"}')
    found = find_dataset(tmp_path)
    assert summary(found) == ('coco', {'train': ('result.json', 1)})
    assert summary(find_dataset(tmp_path / 'result.json'))[0] == 'coco'
    check_images(found)


def test_yolo_and_a_part_that_an_export_names_only(tmp_path):
    yolo(tmp_path, more='val: images/val\ntest: ../test/images\n')
    draw(tmp_path / 'images' / 'val', names=('a',))
    found = find_dataset(tmp_path)
    assert list(found.splits) == ['train', 'val']
    assert found.splits['val'].ann_file == f'{tmp_path}/data.yaml#val'
    assert found.classes == ['cat', 'dog']
    assert len(found.notes) == 1 and 'test' in found.notes[0]
    check_images(found)


def test_voc_with_lists_and_without(tmp_path):
    voc(tmp_path, a=xml(CAT), b=xml(CAT, name='b.png'))
    found = find_dataset(tmp_path)
    assert summary(found) == ('voc', {'train': ('Annotations', 2)})
    check_images(found)
    for name, text in dict(train='a', val='b', cat_train='a 1').items():
        write(tmp_path / 'ImageSets' / 'Main' / f'{name}.txt', text)
    found = find_dataset(tmp_path)
    assert summary(found)[1] == {
        'train': ('ImageSets/Main/train.txt', 1),
        'val': ('ImageSets/Main/val.txt', 1),
    }
    assert found.classes == ['cat']
    check_images(found)


def test_voc_in_folders_of_splits(tmp_path):
    for name in ('train', 'valid'):
        draw(tmp_path / name)
        write(tmp_path / name / 'a.xml', xml(CAT))
    found = find_dataset(tmp_path)
    assert summary(found) == ('voc', {'train': ('train', 1), 'val': ('valid', 1)})
    check_images(found)


def test_tables_of_splits(tmp_path):
    draw(tmp_path / 'images')
    header = 'filename,class,xmin,ymin,xmax,ymax\n'
    write(tmp_path / 'train_labels.csv', f'{header}a.png,dog,1,2,3,4')
    write(tmp_path / 'val_labels.csv', f'{header}b.png,cat,1,2,3,4')
    write(tmp_path / 'prices.csv', 'name,price\nx,1')
    found = find_dataset(tmp_path)
    assert summary(found)[1] == {
        'train': ('train_labels.csv', 1),
        'val': ('val_labels.csv', 1),
    }
    assert (found.format, found.classes) == ('csv', ['cat', 'dog'])
    check_images(found)


def test_an_archive_in_a_folder_of_its_own_name(tmp_path):
    yolo(tmp_path / 'outer' / 'inner')
    assert find_dataset(tmp_path / 'outer').format == 'yolo'


@pytest.mark.parametrize(
    ('files', 'said'),
    [
        ({}, 'Looked for data.yaml .* at the top nothing'),
        ({'readme.md': 'x'}, 'at the top readme.md'),
        ({'labels/a.txt': '0 1 1 1 1', 'images/a.png': 'x'}, 'without a data.yaml'),
        ({'a.csv': 'name,age\nx,1'}, 'a.csv has other columns.*xmin'),
        ({'annotations/train.json': coco('cat', file='gone.png')}, 'gone.png'),
        ({'annotations/train.json': '{"images": [{'}, 'cut off'),
        ({'data.yaml': 'names: [a]\ntrain: gone'}, 'gone'),
        ({'data.yaml': 'names: [a]'}, 'names no images'),
    ],
)
def test_nothing_is_said_in_a_sentence(tmp_path, files, said):
    fill(tmp_path, **files)
    with pytest.raises(DatasetError, match=said) as error:
        find_dataset(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(DatasetError, match='nowhere does not exist'):
        find_dataset(tmp_path / 'nowhere')


def test_several_data_sets_are_named(tmp_path):
    path = yolo(tmp_path)
    draw(tmp_path)
    write(tmp_path / 'train.json', coco('cat'))
    with pytest.raises(DatasetError, match='YOLO .* and COCO'):
        find_dataset(tmp_path)
    assert find_dataset(path).format == 'yolo'
    (tmp_path / 'data.yaml').unlink()
    write(tmp_path / 'train2.json', coco('cat'))
    with pytest.raises(DatasetError, match=r'train.json, .*train2.json'):
        find_dataset(tmp_path)


def test_the_part_of_a_file_has_to_be_said(tmp_path):
    path = yolo(tmp_path)
    with pytest.raises(DatasetError, match='data.yaml#train'):
        read(path)
    assert len(read(f'{path}#train')['images']) == 2


def test_kinds_go_by_endings(tmp_path):
    voc(tmp_path / 'voc', a=xml(CAT))
    kinds = {
        'x.json': 'coco',
        'x': None,
        'data.yml#val': 'yolo',
        'a#train/data.yaml#val': 'yolo',
        'x.csv#test': 'csv',
        f'{tmp_path}/voc/Annotations': 'voc',
        f'{tmp_path}/voc/ImageSets/Main/val.txt': 'voc',
        f'{tmp_path}/some.txt': None,
    }
    assert {name: kind_of(name) for name in kinds} == kinds
    assert image_root('a/data.yaml#val') == 'a'
    assert image_root(f'{tmp_path}/voc/ImageSets/Main/val.txt') == f'{tmp_path}/voc'


@needs_data
def test_real_data_are_found_as_they_lie():
    for place, kind in (('bccd', 'coco'), ('bccd/voc', 'voc'), ('coco128', 'coco')):
        found = find_dataset(DATA / place)
        assert (found.format, list(found.splits)) == (kind, ['train', 'val'])
        split = found.splits['val']
        name = split.document()['images'][-1]['file_name']
        assert Path(split.image_root, name).is_file()


def test_importing_it_brings_nothing():
    code = 'import sys, rfdetr_datasets; print(*sys.modules)'
    modules = run_code(code).stdout.split()
    assert 'rfdetr_datasets' in modules
    assert not {'numpy', 'PIL', 'yaml', 'torch', 'csv'} & {*modules}
    assert sys.modules['rfdetr_datasets']
