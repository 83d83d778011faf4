"""Pascal VOC, also as it should not be."""

import json

import pytest
from rfdetr_datasets import DatasetError, read_voc

from tests.fixtures import DATA, needs_data
from tests.test_datasets.folders import draw, voc, write, xml
from tests.test_datasets.test_yolo import objects

CAT, DOG = ('cat', 0, (5, 6, 15, 16)), ('dog', 1, (0, 0, 60, 40))


def test_boxes_classes_and_difficult_objects(tmp_path):
    path = voc(tmp_path, a=xml(DOG, CAT), b=xml(size=(50, 100), name='b.png'))
    document = read_voc(path)
    assert document['images'] == [
        dict(id=1, file_name='JPEGImages/a.png', height=40, width=60),
        dict(id=2, file_name='JPEGImages/b.png', height=50, width=100),
    ]
    assert document['categories'] == [dict(id=1, name='cat'), dict(id=2, name='dog')]
    dog, cat = document['annotations']
    assert (dog['id'], dog['bbox']) == ('Annotations/a.xml object 1', [0, 0, 60, 40])
    assert (dog['category_id'], dog['ignore'], dog['difficult']) == (2, 1, 1)
    assert (cat['bbox'], cat['area']) == ([5, 6, 10, 10], 100)
    assert 'ignore' not in cat


def test_the_database_counts_from_one_and_includes_the_last(tmp_path):
    path = voc(tmp_path, a=xml(CAT, database='The VOC2007 Database'))
    (found,) = read_voc(path)['annotations']
    assert found['bbox'] == [4, 5, 11, 11]


@pytest.mark.parametrize('place', ['ImageSets/Main', 'ImageSets'])
def test_a_list_says_which_images(tmp_path, place):
    voc(tmp_path, a=xml(CAT), b=xml(DOG))
    path = tmp_path / place / 'train.txt'
    write(path, '\ufeffb  1\r\n\r\ngone\r\n')
    document = read_voc(str(path))
    names = [image['file_name'] for image in document['images']]
    # <filename> says a.png: the name of the XML counts.
    assert names == ['JPEGImages/b.png', None]
    assert document['images'][1]['id'] == 'Annotations/gone.xml'
    assert 'No such file' in document['images'][1]['error']


def test_xml_beside_its_images(tmp_path):
    draw(tmp_path / 'train')
    write(tmp_path / 'train' / 'a.xml', xml(CAT, name='C:\\data\\other.JPG'))
    document = read_voc(str(tmp_path / 'train'))
    assert [image['file_name'] for image in document['images']] == ['a.png']


@pytest.mark.parametrize(
    ('inner', 'expected'),
    [
        ('<object><name>cat</name></object>', None),
        ('<object><name>cat</name><bndbox/></object>', None),
        ('<object><name>cat</name><bndbox><xmin>a</xmin></bndbox></object>', None),
        (('cat', 0, (9, 9, 5, 5)), [9, 9, -4, -4]),
        (('cat', 0, ('1.5', ' 2 ', '3e0', 4)), [1.5, 2, 1.5, 2]),
        (('cat', 'no', (50, 30, 90, 90)), [50, 30, 40, 60]),
    ],
)
def test_boxes_are_carried_over_as_they_are(tmp_path, inner, expected):
    (found,) = read_voc(voc(tmp_path, a=xml(inner)))['annotations']
    assert found.get('bbox') == expected
    assert found['id'] == 'Annotations/a.xml object 1'


def test_an_object_without_a_name_is_of_no_class(tmp_path):
    nameless = (
        '<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>'
    )
    document = read_voc(voc(tmp_path, a=xml(f'{nameless}</bndbox></object>')))
    assert document['annotations'][0]['category_id'] is None
    assert document['categories'] == []


@pytest.mark.parametrize('size', [None, (0, 0), ('', 'x')])
def test_a_size_that_is_unknown_stays_so(tmp_path, size):
    (image,) = read_voc(voc(tmp_path, a=xml(CAT, size=size)))['images']
    assert (image['height'], image['width']) == (None, None)


BOMB = '<!DOCTYPE a [<!ENTITY e "{}">]><annotation><object>&e;</object></annotation>'
OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
    '<annotation><filename>&e;</filename></annotation>'
)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('', 'no element'),
        ('<annotation><object></annotation>', 'mismatched'),
        ('<html/>', 'html'),
        (b'<annotation>\xff\xfe</annotation>', 'not well-formed'),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', 'unknown encoding'),
        (BOMB, 'document type'),
        (OUTSIDE, 'document type'),
        (BOMB.encode('utf-16'), 'document type'),
        ('<annotation>' * 100_000, 'no element'),
    ],
)
def test_xml_that_cannot_be_read_leaves_its_image_out(tmp_path, content, said):
    """And does not make it one without objects."""
    document = read_voc(voc(tmp_path, a=content, b=xml(CAT, name='b.png')))
    broken, sound = document['images']
    assert broken['id'] == 'Annotations/a.xml' and broken['file_name'] is None
    assert said in broken['error'].lower()
    assert sound['file_name'] == 'JPEGImages/b.png'
    assert len(document['annotations']) == 1


@pytest.mark.parametrize('coding', ['utf-8-sig', 'utf-16'])
def test_encodings_and_line_ends(tmp_path, coding):
    text = xml(('größe', 0, (1, 2, 3, 4))).replace('><', '>\r\n<')
    document = read_voc(voc(tmp_path, a=text.encode(coding)))
    assert document['categories'] == [dict(id=1, name='größe')]
    assert document['annotations'][0]['bbox'] == [1, 2, 2, 2]


def test_without_any_xml_there_is_a_sentence(tmp_path):
    (tmp_path / 'Annotations').mkdir()
    with pytest.raises(DatasetError, match='leads to no file of XML'):
        read_voc(str(tmp_path))


@needs_data
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_xml_has_the_objects_of_the_coco_file(split):
    folder = DATA / 'bccd'
    document = read_voc(str(folder / 'voc' / 'ImageSets' / 'Main' / f'{split}.txt'))
    coco = json.loads((folder / 'annotations' / f'{split}.json').read_text())
    assert objects(document) == objects(coco)
    assert len(coco['annotations']) > 1000
