"""Small data sets with files of their own, and perfect detections on them."""

import json

import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.registry import EVALUATOR
from mmengine.structures import InstanceData
from PIL import Image

CLASSES = ('a', 'b')


def write(folder, stem='p', seed=0, size=(40, 60), count=3, ids=None):
    """Images of one size, each with an object of each class, numbered from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        name, key = f'{stem}{number}.png', ids[number] if ids else number + 1
        Image.new('RGB', size[::-1]).save(folder / name)
        images.append(dict(id=key, file_name=name, height=size[0], width=size[1]))
        annotations += [
            dict(image_id=key, category_id=label, bbox=[3 * number + seed, 9, 20, 20])
            for label in range(2)
        ]
    document = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=label, name=name) for label, name in enumerate(CLASSES)],
    )
    (folder / 'annotations.json').write_text(json.dumps(document))
    return folder


def settings(folder, **changes):
    return dict(
        dict(
            type='RFDETRCocoDataset',
            data_root=str(folder),
            ann_file='annotations.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=CLASSES),
            test_mode=True,
            pipeline=[],
        ),
        **changes,
    )


def metric(folder, **changes):
    path = None if folder is None else str(folder / 'annotations.json')
    return dict(dict(type='RFDETRCocoMetric', ann_file=path, metric='bbox'), **changes)


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
