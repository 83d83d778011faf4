"""Classes are known by their names in evaluation, and ids stay what they are."""

import json

import numpy as np
import pytest
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError, SettingError

from .named_sets import evaluate, metric, settings, write


def change(folder, edit):
    """Write the file of a set as another one; returns its folder."""
    document = json.loads((folder / 'annotations.json').read_text())
    edit(document)
    other = folder / 'other'
    other.mkdir()
    (other / 'annotations.json').write_text(json.dumps(document))
    return other


def lose_b(document):
    """As an export that names only the classes it has."""
    del document['categories'][1]
    document['annotations'] = [
        entry for entry in document['annotations'] if entry['category_id'] == 0
    ]


def exchange_ids(document):
    """As another tool numbers the same classes."""
    for entry in document['categories']:
        entry['id'] = 1 - entry['id']
    for entry in document['annotations']:
        entry['category_id'] = 1 - entry['category_id']


@pytest.mark.parametrize(
    'edit', [lambda document: document['categories'].reverse(), exchange_ids]
)
@pytest.mark.parametrize('classes', [('a', 'b'), ('b', 'a')])
def test_the_order_of_a_file_means_nothing(tmp_path, edit, classes):
    folder = write(tmp_path)
    other = change(folder, edit)
    found = evaluate(
        settings(folder, metainfo=dict(classes=classes)),
        metric(other, classwise=True, metric=['bbox', 'proposal']),
    )
    assert found['coco/bbox_mAP'] == found['coco/AR@100'] == 1
    assert found['coco/a_precision'] == found['coco/b_precision'] == 1
    names = [name for name in found if 'precision' in name]
    assert names == [f'coco/{name}_precision' for name in classes]


@pytest.mark.parametrize('classes', [('a', 'b'), ('b', 'a'), ('x', 'b', 'y', 'a')])
def test_a_class_that_the_file_lacks_is_left_out_of_the_mean(tmp_path, classes):
    """The detections of it are no false ones either."""
    folder = write(tmp_path)
    found = evaluate(
        settings(folder, metainfo=dict(classes=classes)),
        metric(
            change(folder, lose_b), classwise=True, outfile_prefix=str(tmp_path / 'out')
        ),
    )
    assert found['coco/bbox_mAP'] == found['coco/a_precision'] == 1
    assert np.isnan(found['coco/b_precision'])
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    # It has no id in this file.
    assert [entry['category_id'] for entry in written] == [0, 0, 0]


def test_masks_of_a_class_that_the_file_lacks_are_not_written(tmp_path):
    folder = write(tmp_path)
    built = METRICS.build(metric(change(folder, lose_b)))
    built.cat_ids = [None, 0]
    result = dict(
        img_id=1,
        bboxes=np.zeros((3, 4)),
        labels=np.array([1, 0, 1]),
        scores=np.array([0.3, 0.2, 0.1]),
        masks=[dict(size=[40, 60], counts=f'{n}') for n in range(3)],
        mask_scores=np.array([0.6, 0.5, 0.4]),
    )
    built.results2json([result], str(tmp_path / 'out'))
    written = json.loads((tmp_path / 'out.segm.json').read_text())
    assert [(e['segmentation']['counts'], e['score']) for e in written] == [
        ('0', 0.6),
        ('2', 0.4),
    ]


def test_the_missing_class_is_logged_once(tmp_path, capsys):
    folder = change(write(tmp_path), lose_b)
    dataset = settings(folder, data_prefix=dict(img=str(tmp_path)))
    evaluate(dataset, metric(folder))
    said = capsys.readouterr()
    assert (said.out + said.err).count("lack ('b',)") == 1


@pytest.mark.parametrize(
    'classes, error, message',
    [
        (('x', 'y'), BadDataError, r"lack \('x', 'y'\).*File: \('a', 'b'\)"),
        (('A', 'b'), BadDataError, r"Did you mean 'a' \(not 'A'\)\?"),
        ('ab', SettingError, r"list, classes=\('ab',\)"),
    ],
)
def test_classes_that_do_not_match_end_before_the_first_step(
    tmp_path, classes, error, message
):
    built = METRICS.build(metric(write(tmp_path)))
    with pytest.raises(error, match=message):
        built.dataset_meta = dict(classes=classes)


@pytest.mark.parametrize(
    'ids', [('1', '01', '001'), ('0001', '0002', '3'), (5, '7', 'x'), (2**60, 1, -1)]
)
def test_result_files_have_the_ids_of_the_file(tmp_path, ids):
    folder = write(tmp_path, ids=ids)

    def name_categories(document):
        for entry in document['categories']:
            entry['id'] = f'0{entry["id"]}'
        for entry in document['annotations']:
            entry['category_id'] = f'0{entry["category_id"]}'

    folder = change(folder, name_categories)
    found = evaluate(
        settings(folder, data_prefix=dict(img=str(tmp_path))),
        metric(folder, outfile_prefix=str(tmp_path / 'out')),
    )
    assert found['coco/bbox_mAP'] == 1
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert [entry['image_id'] for entry in written] == [
        key for key in ids for _ in 'ab'
    ]
    assert {entry['category_id'] for entry in written} == {'00', '01'}


def test_labels_of_category_ids_are_classes_by_name(tmp_path):
    """As of official models, whose rows are numbered so; some have no class."""
    folder = write(tmp_path)

    def use_ids(document):
        for entry in document['categories']:
            entry['id'] = 1 + 2 * entry['id']
        for entry in document['annotations']:
            entry['category_id'] = 1 + 2 * entry['category_id']

    folder = change(folder, use_ids)
    rows = ('class 0', 'a', 'class 2', 'b')
    dataset = settings(
        folder, data_prefix=dict(img=str(tmp_path)), metainfo=dict(classes=rows)
    )
    assert evaluate(dataset, metric(folder))['coco/bbox_mAP'] == 1
