"""Annotation files in which anything can stand anywhere."""

import json
import math
import resource

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import BadDataError, ExplainedError
from mmdet_rfdetr.faults.coco_metric import CheckedCocoMetric
from mmdet_rfdetr.faults.findings import Finding
from tests.factory import ANIMALS, build, document, write

SQUARE = [[5, 6, 25, 6, 25, 16, 5, 16]]
CODE = rle.encode(np.eye(40, 60, dtype=np.uint8, order='F'))['counts'].decode()
RUNS = dict(size=[40, 60], counts=[100, 300, 2000])
PIPELINE = [
    dict(type='RFDETRLoadImage'),
    dict(type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RFDETRResize', image_size=32),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
OF_MMDET = [PIPELINE[0], dict(PIPELINE[1], type='LoadAnnotations'), *PIPELINE[2:]]
METRIC = dict(type='RFDETRCocoMetric', metric='bbox')


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, -(2**63), 10**30, 10**400),
    *(0.5, 17.0, 1e300, -1e300, math.inf, math.nan),
    *('', ' ', '5', '17', '٣', '9' * 5000, 'a\n\x1b[2J', '\ud800', 'x\0y', 'x' * 10**5),
    *([], {}, [[]], [None], [1], [1, 2, 3, 4], ['1', '2', '3', '4'], [[1, 1, 9, 9, 4]]),
    *([1e8] * 4, [-1e300, 1e300, 5, 5], [10**400, -(10**400), 5, 5]),
    *({'id': 1}, dict(RUNS), dict(RUNS, counts='abc'), nested(300), [nested(300)]),
]
FAR = [
    [5, 6, 1e8, 6, 25, 16],
    [5, 6, 4e6, 6, -4e6, 16],
    [1e8, 1e8, 2e8, 1e8, 2e8, 2e8],
    [-1e300, 0, 1e300, 0, 0, 1e300],
    [10**400, 0, -(10**400), 0, 0, 9],
    [x for _ in range(2000) for x in (-9999, -9999, 9999, 9999)],  # a hatching
]
MASKS = [
    *VALUES,
    *([polygon] for polygon in FAR),
    *(dict(RUNS, counts=value) for value in VALUES),
    *(dict(RUNS, size=value) for value in VALUES),
    dict(RUNS, counts=[100.0, 300.0, 2000.0]),
    dict(RUNS, counts=[100.5, 300.5, 1999]),
    dict(RUNS, counts=[[100], [300], [2000]]),
    dict(RUNS, counts=['100', '300', '2000']),
    dict(size=[2**20, 2**20], counts=[2**40]),
    SQUARE,
    [*SQUARE, FAR[0]],
    dict(size=[40.0, 60.0], counts=CODE),
]


def changed(entry):
    """Copies of an entry with one value replaced each, and with one key missing."""
    for key in entry:
        for value in VALUES:
            yield dict(entry, **{key: value})
        yield {other: entry[other] for other in entry if other != key}


def hostile_objects():
    sound = dict(
        id=9, image_id=70, category_id=17, bbox=[5, 6, 20, 10], area=200, iscrowd=0
    )
    sound.update(ignore=0, segmentation=SQUARE)
    yield sound
    yield from changed(sound)
    yield from VALUES
    for mask in MASKS:
        yield dict(sound, segmentation=mask)
    for position in range(4):
        for value in VALUES:
            box = [5, 6, 20, 10]
            box[position] = value
            yield dict(sound, bbox=box)


def write_text(folder, data):
    write(folder)
    (folder / 'annotations.json').write_text(json.dumps(data))
    return folder


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def detections(dataset):
    """One box for each image, with a mask."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        shape = info['height'], info['width']
        yield dict(
            img_id=info['img_id'],
            img_path=info['img_path'],
            ori_shape=shape,
            pred_instances=dict(
                bboxes=torch.tensor([[5.0, 6, 25, 16]]),
                scores=torch.ones(1),
                labels=torch.zeros(1, dtype=torch.long),
                masks=torch.ones(1, *shape, dtype=torch.bool),
            ),
        )


def evaluate(path, dataset, **changes):
    metric = METRICS.build(dict(METRIC, ann_file=str(path), **changes))
    metric.dataset_meta = dict(classes=ANIMALS)
    found = list(detections(dataset))
    metric.process({}, found)
    return metric.evaluate(len(found))


@pytest.mark.parametrize('pipeline', [PIPELINE, OF_MMDET], ids=['ours', "mmdet's"])
def test_objects_of_any_content_are_findings(tmp_path, pipeline):
    data = document()
    data['annotations'] += hostile_objects()
    write_text(tmp_path, data)
    before = peak_memory()
    dataset = build(tmp_path, pipeline=pipeline)
    counts = dataset.findings.counts
    assert counts[Finding.POLYGON_FAR] >= len(FAR) - 1
    assert counts[Finding.MASK_BROKEN] > 40 and counts[Finding.OBJECT_BROKEN] > 100
    assert all(line.isprintable() for line in dataset.findings.table().splitlines())
    sample = dataset[0]['data_samples']
    masks = sample.gt_instances.masks.masks
    assert len(masks) > 20 and masks.any((1, 2)).all()
    results = evaluate(tmp_path / 'annotations.json', dataset)
    assert 0 <= results['coco/bbox_mAP'] <= 1
    assert peak_memory() - before < 300 * 2**20


def test_masks_of_any_content_are_an_error_before_the_first_step_or_evaluated(tmp_path):
    sound = dict(
        id=9, image_id=70, category_id=17, bbox=[5, 6, 20, 10], area=200, iscrowd=0
    )
    write(tmp_path)
    path = tmp_path / 'annotations.json'
    usable = []
    before = peak_memory()
    for mask in MASKS:
        data = dict(document(), annotations=[dict(sound, segmentation=mask)])
        path.write_text(json.dumps(data))
        try:
            CheckedCocoMetric(ann_file=str(path), metric='segm')
            usable.append(dict(sound, segmentation=mask))
        except BadDataError as error:
            assert "metric 'segm' needs a mask" in str(error)
    assert 3 <= len(usable) < 20
    path.write_text(json.dumps(dict(document(), annotations=usable)))
    dataset = build(tmp_path, pipeline=PIPELINE)
    for engine in ('auto', 'pycocotools'):
        assert 'coco/segm_mAP' in evaluate(path, dataset, metric='segm', engine=engine)
    assert peak_memory() - before < 300 * 2**20


@pytest.mark.parametrize('check_images', [True, False])
def test_images_of_any_content_are_findings(tmp_path, check_images):
    data = document()
    data['images'] += changed(dict(id=1, file_name='b.jpg', height=60, width=40))
    data['images'] += VALUES
    write_text(tmp_path, data)
    before = peak_memory()
    dataset = build(
        tmp_path, pipeline=PIPELINE, check_images=check_images, test_mode=True
    )
    assert dataset.findings.counts[Finding.IMAGE_BROKEN] > 60
    for index in range(len(dataset)):
        assert dataset[index]['inputs'].shape == (3, 32, 32)
    evaluate(tmp_path / 'annotations.json', dataset)
    assert peak_memory() - before < 300 * 2**20


def hostile_documents():
    sound = document()
    for key in sound:
        for value in VALUES:
            yield dict(sound, **{key: value})
    yield from VALUES
    for category in changed(sound['categories'][0]):
        yield dict(sound, categories=[category, *sound['categories'][1:]])


def test_documents_of_any_content_work_or_are_one_sentence(tmp_path):
    write(tmp_path)
    path = tmp_path / 'annotations.json'
    outcomes = []
    for data in hostile_documents():
        path.write_text(json.dumps(data))
        for use in (
            lambda: build(tmp_path, serialize_data=False, pipeline=[]),
            lambda: CheckedCocoMetric(ann_file=str(path)),
        ):
            try:
                use()
                outcomes.append('works')
            except ExplainedError as error:
                outcomes.append('error')
                assert len(str(error)) < 4000
    assert min(map(outcomes.count, ('works', 'error'))) > 20


@pytest.mark.parametrize(
    'text',
    [
        '[' * 200_000 + ']' * 200_000,
        '{"images": ' * 200_000 + '1' + '}' * 200_000,
        '{"images": [' + '9' * 5000 + '], "annotations": [], "categories": []}',
        '\0' * 100,
        '\ufeff{}',
    ],
    ids=['lists', 'objects', 'digits', 'zeros', 'mark'],
)
def test_text_that_python_does_not_read_is_one_sentence(tmp_path, text):
    write(tmp_path, text)
    with pytest.raises(BadDataError, match=r'annotations\.json'):
        build(tmp_path)


@pytest.mark.parametrize('kind', ['RFDETRCocoDataset', 'CocoDataset'])
def test_a_polygon_is_dropped_and_the_others_drawn(tmp_path, kind):
    data = document()
    for annotation in data['annotations']:
        annotation['segmentation'] = [*SQUARE, FAR[0]]
    dataset = build(write(tmp_path, data), type=kind, pipeline=PIPELINE[:2])
    if kind == 'RFDETRCocoDataset':
        assert dataset.findings.counts[Finding.POLYGON_FAR] == 4
    (mask,) = dataset[0]['gt_masks'].masks[:1]
    expected = np.zeros((40, 60), np.uint8)
    expected[6:16, 5:25] = 1
    np.testing.assert_array_equal(mask, expected)
