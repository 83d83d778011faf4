"""Data sets written in another format, and back."""

import json
import shutil

import numpy as np
import pycocotools.mask as run_lengths
import pytest
from PIL import Image
from rfdetr_convert import target_names, write_coco, write_yolo
from rfdetr_convert.yolo import join_polygons
from rfdetr_datasets import DatasetError, find_dataset
from rfdetr_datasets.files import read_size

from tests.factory import coco
from tests.factory import write_coco as write_coco_set
from tests.fixtures import DATA, needs_data
from tests.test_datasets.folders import OBJECT, draw, voc, write, xml, yolo
from tests.test_datasets.test_yolo import objects

LABELS = (
    '0 0.123457 0.5 0.333333 0.25\n1 0.1 0.2 0.7 0.123 0.9 0.77 0.5 0.9\n',
    '1 0 0 1 1\n',
)


def document_of(folder, split='train'):
    return find_dataset(folder).splits[split].document()


def everything(document):
    """All that is said of images and objects, in a form that can be compared."""
    names = {entry['id']: entry['name'] for entry in document['categories']}
    images = {image['id']: image for image in document['images']}
    return [
        (
            images[each['image_id']]['file_name'].rpartition('/')[2],
            images[each['image_id']]['height'],
            images[each['image_id']]['width'],
            names[each['category_id']],
            each['bbox'],
            each.get('segmentation') or [],
        )
        for each in document['annotations']
    ]


def test_labels_come_back_as_the_same_text(tmp_path, convert):
    yolo(tmp_path / 'one', LABELS)
    # Of an odd side, half a width has a digit more than are kept of a pixel.
    Image.new('RGB', (61, 37)).save(tmp_path / 'one' / 'images' / 'train' / 'a.png')
    assert convert(tmp_path / 'one', tmp_path / 'two')[0] == 0
    assert find_dataset(tmp_path / 'two').format == 'coco'
    assert convert(tmp_path / 'two', tmp_path / 'three')[0] == 0
    for name, text in zip('ab', LABELS, strict=True):
        path = tmp_path / 'three' / 'labels' / 'train' / f'{name}.txt'
        assert path.read_text() == text
    found = find_dataset(tmp_path / 'three')
    assert (found.format, found.classes) == ('yolo', ['cat', 'dog'])
    assert everything(document_of(tmp_path / 'three')) == everything(
        document_of(tmp_path / 'one')
    )


def test_boxes_of_a_coco_file_come_back_to_the_last_digit(tmp_path, convert):
    """Of sides that no number divides, with two digits as in COCO's own files."""
    rng = np.random.default_rng(0)
    sizes = [(427, 641), (333, 500)]
    document = coco((6, 6), sizes[0])
    for image, (height, width) in zip(document['images'], sizes, strict=True):
        image.update(height=height, width=width)
    for annotation in document['annotations']:
        corner, side = rng.uniform(0, 200, 2), rng.uniform(1, 120, 2)
        annotation['bbox'] = np.concatenate([corner, side]).round(2).tolist()
        annotation.pop('segmentation', None)
    source = write_coco_set(tmp_path / 'one', (0,))  # its pictures are written over
    for number, (image, size) in enumerate(zip(document['images'], sizes, strict=True)):
        Image.new('RGB', size[::-1], (number, 0, 0)).save(source / image['file_name'])
    (source / 'annotations.json').write_text(json.dumps(document))
    assert convert(source, tmp_path / 'two', '--to', 'yolo')[0] == 0
    code, _ = convert(tmp_path / 'two', tmp_path / 'three', '--to', 'coco')
    assert code == 0
    assert everything(document_of(tmp_path / 'three')) == everything(document)


def test_what_yolo_cannot_say_is_told(tmp_path, convert):
    """And nothing is written as something else."""
    square = [[5, 6, 25, 6, 25, 16, 5, 16]]
    plain = dict(image_id=1, category_id=1, bbox=[5, 6, 20, 10], segmentation=square)
    code = run_lengths.encode(np.asfortranarray(np.ones((40, 60), np.uint8)))
    code = dict(code, counts=code['counts'].decode())
    annotations = [
        plain,
        dict(plain, iscrowd=1),
        dict(plain, ignore=1),
        dict(plain, segmentation=code),
        dict(plain, segmentation=square * 2),
        dict(plain, score=0.5),
        dict(plain, segmentation=[], area=7),
        dict(plain, bbox=None),
        dict(plain, category_id=9),
        dict(plain, image_id=9),
    ]
    document = dict(
        images=[
            dict(id=1, file_name='a.png', height=40, width=60),
            dict(id=2, height=40, width=60),
        ],
        annotations=[dict(each, id=n) for n, each in enumerate(annotations)],
        categories=[dict(id=1, name='cat')],
    )
    draw(tmp_path / 'one', names=('a',))
    write(tmp_path / 'one' / 'train.json', json.dumps(document))
    code, said = convert(tmp_path / 'one', tmp_path / 'two')
    assert code == 0
    for what, example in [
        ('crowd regions: left out', 1),
        ('objects to ignore: left out', 2),
        ('masks that are no polygons: written as boxes', 3),
        ('objects of several polygons', 4),
        ('objects with "score"', 5),
        ('objects with an "area" of their own', 6),
        ('objects without four finite box numbers: left out', 7),
        ('objects of a class that is not listed: left out', 8),
        ('objects of an image that is not listed: left out', 9),
        ('images without a name', 2),
    ]:
        (line,) = [line for line in said.splitlines() if what in line]
        assert line.startswith('  1 ') and f'for example {example}' in line
    text = (tmp_path / 'two' / 'labels' / 'train' / 'a.txt').read_text()
    lengths = [len(line.split()) for line in text.splitlines()]
    assert lengths == [9, 5, 1 + 8 + 2 + 8 + 2 + 2, 9, 5]


def test_polygons_that_are_joined_cover_the_same_pixels():
    parts = [
        [10, 5, 30, 5, 30, 20, 10, 20],
        [40, 25, 55, 25, 50, 35],
        [3, 30, 20, 30, 20, 38, 3, 38],
    ]

    def pixels(polygons):
        codes = run_lengths.frPyObjects(polygons, 40, 60)
        return run_lengths.decode(run_lengths.merge(codes))

    together = pixels([join_polygons(parts)])
    # A line of no width may draw the pixels that it runs along.
    assert (pixels(parts) <= together).all()
    assert together.sum() - pixels(parts).sum() < 0.1 * pixels(parts).sum()


def test_xml_keeps_what_coco_can_say(tmp_path, convert):
    hard = OBJECT.format('dog', 1, 30, 10, 50, 30)
    voc(tmp_path / 'one', a=xml(('cat', 0, (5, 6, 15, 16)), hard), b=xml('', size=None))
    write(tmp_path / 'one' / 'Annotations' / 'c.xml', '<annotation>')
    code, said = convert(tmp_path / 'one', tmp_path / 'two', '--to', 'coco')
    assert code == 0 and 'Annotations/c.xml: no XML' in said
    document = document_of(tmp_path / 'two')
    assert [(x['file_name'], x['height']) for x in document['images']] == [
        ('a.png', 40),
        ('b.png', 50),
    ]
    assert [entry['name'] for entry in document['categories']] == ['cat', 'dog']
    assert [each['id'] for each in document['annotations']] == [1, 2]
    assert [each.get('ignore', 0) for each in document['annotations']] == [0, 1]
    code, said = convert(tmp_path / 'one', tmp_path / 'three', '--to', 'yolo')
    assert code == 0 and '1 difficult objects: left out' in said


def test_splits_have_the_same_categories(tmp_path, convert):
    header = 'filename,class,xmin,ymin,xmax,ymax\n'
    draw(tmp_path / 'one' / 'images')
    for split, row in (('train', 'a.png,dog'), ('val', 'b.png,cat')):
        write(tmp_path / 'one' / f'{split}.csv', f'{header}{row},1,2,3,4')
    assert convert(tmp_path / 'one', tmp_path / 'two')[0] == 0
    for split, name in (('train', 'dog'), ('val', 'cat')):
        document = document_of(tmp_path / 'two', split)
        categories = {entry['id']: entry['name'] for entry in document['categories']}
        assert categories == {1: 'cat', 2: 'dog'}
        assert categories[document['annotations'][0]['category_id']] == name


@pytest.mark.parametrize('how', ['link', 'copy', 'none'])
def test_images_are_linked_copied_or_left(tmp_path, convert, how):
    path = tmp_path / 'one'
    yolo(path, LABELS)
    draw(path / 'images' / 'train' / 'deep' / 'images', names=('a',))
    (path / 'images' / 'train' / 'b.png').unlink()
    code, said = convert(path, tmp_path / 'two', '--images', how)
    assert code == 0
    images = tmp_path / 'two' / 'images' / 'train'
    if how == 'none':
        assert not images.exists() and f'stay in {path}' in said
        document = json.loads(
            (tmp_path / 'two' / 'annotations' / 'instances_train.json').read_text()
        )
        for image in document['images']:
            assert (path / image['file_name']).is_file()
        return
    names = [image['file_name'] for image in document_of(tmp_path / 'two')['images']]
    assert names == ['a.png', 'a-2.png']
    for name in names:
        assert (images / name).is_symlink() == (how == 'link')
    if how == 'copy':
        shutil.rmtree(path)
    for name in names:
        assert read_size(str(images / name)) == (40, 60)


def test_names_below_a_new_folder_differ_and_stay_inside():
    files = ['p/a.jpg', 'p/a.png', 'p/q/a.jpg', 'p\\b.jpg', 'p/images/c.jpg']
    document = dict(images=[dict(file_name=name) for name in files])
    assert list(target_names(document).values()) == [
        *('a.jpg', 'a-2.png', 'q/a.jpg', 'b.jpg', 'c.jpg')
    ]
    files = ['../../x/a.jpg', '/data/b.jpg', 'C:\\c.jpg']
    document = dict(images=[dict(file_name=name) for name in files])
    assert list(target_names(document).values()) == ['a.jpg', 'b.jpg', 'c.jpg']
    assert target_names(dict(images=[dict(file_name=None)])) == {}


def test_files_that_are_there_stay(tmp_path, convert):
    yolo(tmp_path / 'one', LABELS)
    write(tmp_path / 'two' / 'precious.txt', 'mine')
    code, said = convert(tmp_path / 'one', tmp_path / 'two')
    assert code == 2 and 'not empty' in said and '--overwrite' in said
    assert convert(tmp_path / 'one', tmp_path / 'two', '--overwrite')[0] == 0
    assert (tmp_path / 'two' / 'precious.txt').read_text() == 'mine'
    document = document_of(tmp_path / 'one')
    path = tmp_path / 'two' / 'annotations' / 'instances_train.json'
    before = path.read_bytes()
    with pytest.raises(DatasetError, match='instances_train.json is there already'):
        write_coco(document, path)
    with pytest.raises(DatasetError, match='a.txt is there already'):
        write_yolo(
            document,
            tmp_path / 'one',
            'train',
            ['cat'],
            names={
                image['file_name']: image['file_name'][-5:]
                for image in document['images']
            },
        )
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    document = dict(images=[], annotations=[], categories=[])
    write(tmp_path / 'file', '')
    with pytest.raises(DatasetError, match=r'file.* cannot be written'):
        write_coco(document, tmp_path / 'file' / 'below.json')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file']


def test_what_is_no_data_set_is_a_sentence(tmp_path, convert):
    code, said = convert(tmp_path, tmp_path / 'two')
    assert code == 1 and len(said.splitlines()) == 1 and 'holds no data set' in said
    assert not (tmp_path / 'two').exists()


@needs_data
def test_real_images_go_round(tmp_path, convert):
    """COCO to YOLO and back, and XML to COCO: the files that lie beside them."""
    source = DATA / 'coco128'
    assert convert(source, tmp_path / 'yolo')[0] == 0
    assert convert(tmp_path / 'yolo', tmp_path / 'coco')[0] == 0
    assert convert(DATA / 'bccd' / 'voc', tmp_path / 'cells')[0] == 0
    for split in ('train', 'val'):
        path = source / 'annotations' / f'instances_{split}2017.json'
        expected = json.loads(path.read_text())
        assert everything(document_of(tmp_path / 'coco', split)) == everything(expected)
        path = DATA / 'bccd' / 'annotations' / f'{split}.json'
        cells = json.loads(path.read_text())
        assert objects(document_of(tmp_path / 'cells', split)) == objects(cells)
