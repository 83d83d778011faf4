"""A user's project: own pictures, own classes, own pipeline, a model of toy size."""

import json

import numpy as np
from PIL import Image

CLASSES = ('square', 'bar')
# What ``_base_`` says in a project that inherits from the installed package.
NANO = "__import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')"

# Below a line that says what it inherits from, this is a whole project config.
CONFIG = """
__import__('mmdet_rfdetr').set_image_size(_base_, 64)

classes = ('square', 'bar')
model = dict(
    precision=None,
    num_queries=12,
    num_groups=2,
    backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
    neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
    decoder=dict(
        num_layers=1, self_attn_heads=2, cross_attn_heads=2, feedforward_channels=32
    ),
    bbox_head=dict(num_classes=len(classes)),
    test_cfg=dict(max_per_img=10),
)
load = dict(type='LoadImageFromFile')
resize = dict(type='Resize', scale=(64, 64))
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
annotations = dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='pictures/',
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        pipeline=[load, annotations, resize, pack],
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='pictures/',
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[load, resize, annotations, pack],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CocoMetric',
    ann_file='pictures/annotations.json',
    metric='bbox',
)
test_evaluator = val_evaluator
optim_wrapper = dict(device_type='cpu', dtype='float32')
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


def write_pictures(folder, count=4):
    """Draw pictures with one square and one bar each, and their annotations."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, count + 1):
        height, width = (60, 80) if image_id % 2 else (80, 60)
        picture = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
        for category_id, (wide, high) in ((7, (20, 20)), (3, (36, 8))):
            left, top = generator.integers(0, 20, 2).tolist()
            top += 30 * (category_id == 3)
            picture[top : top + high, left : left + wide] = 255
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category_id,
                    bbox=[left, top, wide, high],
                    area=wide * high,
                    iscrowd=0,
                )
            )
        name = f'{image_id}.png'
        Image.fromarray(picture).save(folder / name)
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
    categories = [dict(id=7, name='square'), dict(id=3, name='bar')]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def write_project(folder, base):
    """Write pictures and ``mine.py``, which inherits from ``base``.

    Args:
        folder: a pathlib.Path.
        base: the right side of ``_base_ = ...``.

    Returns:
        The path of the config.
    """
    write_pictures(folder / 'pictures')
    config = folder / 'mine.py'
    config.write_text(f'_base_ = {base}{CONFIG}')
    return config
