"""Evaluation of masks in images whose size the file states wrongly, or not at all."""

import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS

from mmdet_rfdetr.errors import SettingError
from tests.test_evaluation import random_sets

SHAPE = (60, 80)
POLYGON = [[10, 10, 30, 10, 30, 40, 10, 40]]


def evaluate(folder, engine, size, segmentation):
    """Mean precisions of boxes and masks for a perfect detection."""
    annotation = dict(
        id=1,
        image_id=1,
        category_id=1,
        bbox=[10, 10, 20, 30],
        area=600,
        iscrowd=0,
        segmentation=segmentation,
    )
    document = dict(
        images=[dict(id=1, file_name='a.jpg', **size)],
        annotations=[annotation],
        categories=[dict(id=1, name='a')],
    )
    path = folder / 'annotations.json'
    path.write_text(json.dumps(document))
    metric = METRICS.build(
        dict(
            type='RFDETRCocoMetric',
            ann_file=str(path),
            metric=['bbox', 'segm'],
            engine=engine,
        )
    )
    metric.dataset_meta = dict(classes=('a',))
    mask = np.zeros((1, *SHAPE), bool)
    mask[0, 10:40, 10:30] = True
    found = dict(
        bboxes=torch.tensor([[10.0, 10.0, 30.0, 40.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        masks=torch.from_numpy(mask),
    )
    metric.process({}, [dict(img_id=1, ori_shape=SHAPE, pred_instances=found)])
    scores = metric.evaluate(1)
    return scores['coco/bbox_mAP'], scores['coco/segm_mAP']


@pytest.mark.parametrize('engine', ('pycocotools', 'auto'))
@pytest.mark.parametrize(
    'size',
    (dict(height=60, width=80), dict(height=40, width=60), {}),
    ids=('right', 'wrong', 'missing'),
)
def test_polygons_are_drawn_at_the_size_of_the_image(tmp_path, engine, size):
    assert evaluate(tmp_path, engine, size, POLYGON) == (1, 1)


@pytest.mark.parametrize('engine', ('pycocotools', 'auto'))
def test_run_lengths_of_an_image_without_stated_size(tmp_path, engine):
    counts = [10 * 60 + 10, *[30, 30] * 19, 30, 60 * 80 - 30 * 60 + 20]
    counts[-1] = 60 * 80 - sum(counts[:-1])
    runs = dict(size=[60, 80], counts=counts)
    assert evaluate(tmp_path, engine, {}, runs) == (1, 1)


def test_masks_that_are_not_there(tmp_path, monkeypatch):
    path, found = random_sets.make_set(tmp_path)
    metric = METRICS.build(
        dict(type='RFDETRCocoMetric', ann_file=str(path), metric='segm')
    )
    metric.dataset_meta = dict(classes=random_sets.CLASSES)
    metric.process({}, list(random_sets.samples(found)))
    with pytest.raises(SettingError, match="'segm' needs masks, and the model"):
        metric.evaluate(len(found))
