"""MMDetection's LVIS metric and data set, on all of their 1,203 classes."""

import json

import pytest
import torch
from mmdet.datasets import LVISV1Dataset
from mmdet.registry import DATASETS, METRICS
from PIL import Image

CLASSES = LVISV1Dataset.METAINFO['classes']


@pytest.fixture
def lvis(tmp_path):
    """A data set with objects of the first and of the last class."""
    ids = [1, len(CLASSES)]
    images = [
        dict(
            id=number,
            coco_url=f'http://images.cocodataset.org/val2017/{number}.jpg',
            height=40,
            width=60,
            neg_category_ids=[],
            not_exhaustive_category_ids=[],
        )
        for number in (1, 2)
    ]
    annotations = [
        dict(
            id=2 * image['id'] + index,
            image_id=image['id'],
            category_id=category,
            bbox=[10, 10, 20, 20],
            area=400,
            segmentation=[[10, 10, 30, 10, 30, 30, 10, 30]],
        )
        for image in images
        for index, category in enumerate(ids)
    ]
    categories = [
        dict(id=number, name=name, frequency='f', synset=name)
        for number, name in enumerate(CLASSES, 1)
    ]
    document = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'ann.json').write_text(json.dumps(document))
    (tmp_path / 'val2017').mkdir()
    for image in images:
        Image.new('RGB', (60, 40)).save(tmp_path / 'val2017' / f'{image["id"]}.jpg')
    return tmp_path


@pytest.mark.parametrize(('missed', 'expected'), [(0, 1.0), (1, 0.5)])
def test_detections_of_lvis_are_scored(lvis, missed, expected):
    dataset = DATASETS.build(
        dict(
            type='LVISV1Dataset',
            data_root=str(lvis),
            ann_file='ann.json',
            data_prefix=dict(img=''),
        )
    )
    assert len(dataset.metainfo['classes']) == len(CLASSES) == 1203
    metric = METRICS.build(
        dict(type='LVISMetric', ann_file=str(lvis / 'ann.json'), metric='bbox')
    )
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        labels = [each['bbox_label'] for each in info['instances']][missed:]
        boxes = [each['bbox'] for each in info['instances']][missed:]
        found = dict(
            img_id=info['img_id'],
            ori_shape=(40, 60),
            pred_instances=dict(
                bboxes=torch.tensor(boxes).float(),
                scores=torch.ones(len(boxes)),
                labels=torch.tensor(labels),
            ),
        )
        metric.process({}, [found])
    assert metric.evaluate(size=2)['lvis/bbox_AP'] == expected
