"""Categories of annotation files that are no classes, or are not clear."""

import pytest
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import build, document, write
from tests.test_faults.looks import row


def test_categories_that_nobody_asked_for_are_left_out(tmp_path, told):
    dataset = build(write(tmp_path), metainfo=dict(classes=('dog',)))
    assert row(told, Finding.UNUSED_CATEGORY)[0] == 2
    labels = [
        item['bbox_label']
        for index in range(3)
        for item in dataset.get_data_info(index)['instances']
    ]
    assert labels == [0, 0]


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
