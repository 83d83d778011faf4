"""A CSV of boxes, under the headers that people have."""

import pytest
from rfdetr_datasets import DatasetError, find_dataset, read_csv

from tests.test_datasets.folders import draw, write

HEADER = 'filename,class,xmin,ymin,xmax,ymax\n'


def table(folder, text, name='boxes.csv'):
    draw(folder / 'images')
    write(folder / name, text)
    return str(folder / name)


@pytest.mark.parametrize(
    'text',
    [
        f'{HEADER}a.png,cat,5,6,15,26\n',
        'filename,width,height,class,xmin,ymin,xmax,ymax\na.png,60,40,cat,5,6,15,26\n',
        'images/a.png,5,6,15,26,cat\nimages/b.png,,,,,\n',
        'image_id,bbox,label\na,"[5, 6, 10, 20]",cat\n',
        'Image;Label;X;Y;Width;Height\na.png;cat;5,0;6;10;20\n',
        'image_path\tcategory\tx1\ty1\tx2\ty2\nimages\\a.png\tcat\t5\t6\t15\t26\n',
        'image_name,label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_width,'
        'image_height\na.png,cat,5,6,10,20,60,40\n',
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n'
        'a,x,cat,1,0.08333333333,0.25,0.15,0.65,0\n',
        f'\ufeff{HEADER}a.png,cat,5,6,15,26\n'.replace('\n', '\r\n'),
    ],
)
def test_headers_of_every_kind(tmp_path, text):
    document = read_csv(table(tmp_path, text))
    assert document['images'][0] == dict(
        id=1, file_name='images/a.png', height=40, width=60
    )
    assert document['categories'] == [dict(id=1, name='cat')]
    (found,) = document['annotations']
    assert found['bbox'] == pytest.approx([5, 6, 10, 20], abs=1e-6)
    line = 1 if text.startswith('images/') else 2
    assert (found['id'], found['category_id']) == (f'boxes.csv:{line}', 1)


def test_objects_of_an_image_are_joined_and_empty_cells_are_none(tmp_path):
    text = f'{HEADER}b.png,dog,1,2,3,4\na.png,,,,,\n\nb.png,cat,5,6,7,8\n'
    document = read_csv(table(tmp_path, text))
    assert [image['file_name'][-5:] for image in document['images']] == [
        'b.png',
        'a.png',
    ]
    ids = [(each['id'], each['image_id']) for each in document['annotations']]
    assert ids == [('boxes.csv:2', 1), ('boxes.csv:5', 1)]
    assert [entry['name'] for entry in document['categories']] == ['cat', 'dog']


@pytest.mark.parametrize(
    ('row', 'expected'),
    [
        ('a.png,cat,1,2,3', None),
        ('a.png,cat,1,2,x,4', None),
        ('a.png,cat,9,9,5,5', [9, 9, -4, -4]),
        ('a.png,cat,0.1,0.1,0.9,0.9', [0.1, 0.1, 0.8, 0.8]),
    ],
)
def test_rows_are_carried_over_as_they_are(tmp_path, row, expected):
    path = table(tmp_path, f'{HEADER}b.png,cat,1,2,3,4\n{row}\n')
    found = read_csv(path)['annotations'][1]
    assert found.get('bbox') == (expected and pytest.approx(expected))
    assert found['id'] == 'boxes.csv:3'


def test_a_row_without_a_class_is_of_none_and_without_an_image_too(tmp_path):
    document = read_csv(table(tmp_path, f'{HEADER}a.png,,1,2,3,4\n,cat,1,2,3,4\n'))
    assert document['annotations'][0]['category_id'] is None
    assert document['images'][1]['file_name'] is None


def test_without_a_column_of_classes_there_is_one(tmp_path):
    path = table(tmp_path, 'image_id,width,height,bbox\na,60,40,"[5, 6, 10, 20]"\n')
    document = read_csv(path)
    assert document['categories'] == [dict(id=1, name='object')]
    assert document['annotations'][0]['category_id'] == 1


def test_an_image_that_is_not_there_keeps_its_name(tmp_path):
    (image,) = read_csv(table(tmp_path, f'{HEADER}gone.png,cat,1,2,3,4'))['images']
    assert image == dict(id=1, file_name='gone.png', height=None, width=None)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('', 'the columns nothing'),
        ('name,age\nx,1\n', 'name, age.*filename, class, xmin'),
        ('filename,class,xmin,ymin,xmax\n', 'xmax.*ymax'),
        (
            b'filename,class,xmin,ymin,xmax,ymax\na.png,gr\xf6\xdfe,1,2,3,4',
            'Line 2.*UTF',
        ),
        (f'{HEADER}a.png,"{"x" * 200_000}",1,2,3,4', 'no table'),
    ],
)
def test_tables_that_cannot_be_read_are_a_sentence(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        read_csv(table(tmp_path, text))


def test_a_column_of_splits(tmp_path):
    text = (
        'filename,class,xmin,ymin,xmax,ymax,split\n'
        'a.png,cat,1,2,3,4,TRAIN\nb.png,dog,1,2,3,4,VALIDATION\n'
    )
    found = find_dataset(table(tmp_path, text))
    assert list(found.splits) == ['train', 'val']
    assert found.classes == ['cat', 'dog']
    document = found.splits['val'].document()
    assert [image['file_name'] for image in document['images']] == ['images/b.png']
