"""Small data sets with files of their own, and perfect detections on them."""

from pathlib import Path

import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.registry import EVALUATOR
from mmengine.structures import InstanceData

from tests import factory

CLASSES = ('a', 'b')


def write(folder, stem='p', seed=0, size=(40, 60), count=3, ids=None):
    """Images of one size, each with an object of each class, numbered from 1."""
    return factory.write_coco(
        folder,
        [len(CLASSES)] * count,
        size,
        classes=CLASSES,
        category_ids=range(len(CLASSES)),
        image_ids=ids or range(1, count + 1),
        stem=stem,
        seed=seed,
    )


def settings(folder, **changes):
    defaults = dict(metainfo=dict(classes=CLASSES), test_mode=True, pipeline=[])
    return factory.dataset(folder, **{**defaults, **changes})


def metric(folder, **changes):
    """Config of the metric for a file, or for the samples where there is none."""
    if folder is None:
        changes['ann_file'] = None
    return factory.metric(folder or Path(), **changes)


def perfect(dataset):
    """What a model that finds every object makes of the samples."""
    for index in range(len(dataset)):
        info = dataset[index]
        objects = info['instances']
        sample = DetDataSample(
            metainfo=dict(
                img_id=info['img_id'],
                img_path=info['img_path'],
                ori_shape=(info['height'], info['width']),
                instances=objects,
            )
        )
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([entry['bbox'] for entry in objects]).float(),
            labels=torch.tensor([entry['bbox_label'] for entry in objects]),
            scores=torch.ones(len(objects)),
        )
        yield sample


def evaluate(dataset, *metrics, prefixes=None):
    """Evaluate perfect detections as a loop does."""
    dataset = DATASETS.build(dataset)
    evaluator = dict(type='Evaluator', metrics=list(metrics))
    if prefixes:
        evaluator |= dict(type='MultiDatasetsEvaluator', dataset_prefixes=prefixes)
    evaluator = EVALUATOR.build(evaluator)
    evaluator.dataset_meta = dataset.metainfo
    for sample in perfect(dataset):
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))
