"""A detector small enough to train in a test, and pictures for it."""

import json

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from PIL import Image

CLASSES = ('a', 'b', 'c')
SIZE = 32


def model_cfg(**backbone):
    return dict(
        type='RFDETR',
        num_queries=6,
        num_groups=2,
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=8,
        ),
        backbone=dict(
            dict(
                type='RFDETRBackbone',
                embed_dims=16,
                num_heads=2,
                patch_size=4,
                num_windows=2,
                out_indices=(1, 2),
                pos_embed_size=8,
            ),
            **backbone,
        ),
        neck=dict(
            type='RFDETRProjector', in_channels=[16, 16], out_channels=16, num_blocks=1
        ),
        decoder=dict(
            num_layers=2,
            self_attn_heads=2,
            cross_attn_heads=2,
            num_points=2,
            feedforward_channels=32,
        ),
        bbox_head=dict(
            type='RFDETRHead',
            num_classes=len(CLASSES),
            loss_cls=dict(type='RFDETRIoUAwareBCELoss'),
            loss_bbox=dict(type='L1Loss', loss_weight=5.0),
            loss_iou=dict(type='GIoULoss', loss_weight=2.0, eps=1e-7),
        ),
        train_cfg=dict(assigner=dict(type='RFDETRHungarianAssigner')),
        test_cfg=dict(max_per_img=10),
    )


def model(**backbone):
    torch.manual_seed(0)
    built = MODELS.build(model_cfg(**backbone))
    with torch.no_grad():
        for parameter in built.parameters():  # nothing may start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built


def boxes(generator, count):
    corners = torch.rand(count, 2, generator=generator) * 0.5
    sides = 0.1 + torch.rand(count, 2, generator=generator) * 0.4
    return torch.cat((corners, corners + sides), dim=1)


def batch(counts, seed=0):
    """A batch as the loader gives it, with so many objects in the images."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for count in counts:
        sample = DetDataSample(
            metainfo=dict(img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes(generator, count) * SIZE,
            labels=torch.randint(len(CLASSES), (count,), generator=generator),
        )
        samples.append(sample)
    images = [
        torch.randint(256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        for _ in counts
    ]
    return dict(inputs=images, data_samples=samples)


def write_coco(folder, count=5, size=(48, 64)):
    """Pictures of (height, width) ``size`` and their annotations."""
    generator = torch.Generator().manual_seed(1)
    height, width = size
    images, annotations = [], []
    (folder / 'images').mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3))
        name = f'{number}.png'
        Image.fromarray(pixels.astype(np.uint8)).save(folder / 'images' / name)
        images.append(dict(id=number, file_name=name, height=height, width=width))
        scale = torch.tensor([width, height] * 2)
        for x1, y1, x2, y2 in (boxes(generator, number) * scale).tolist():
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=1 + len(annotations) % len(CLASSES),
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                    segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]],
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    document = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations.json').write_text(json.dumps(document))
