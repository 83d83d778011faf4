"""The shipped Seg Nano config, shrunk, and pictures with masks to train it on."""

import json

import numpy as np
import pycocotools.mask as rle
from mmengine.config import Config
from PIL import Image

from mmdet_rfdetr import config, set_image_size

CLASSES = ('ring', 'bar')


def write_pictures(folder):
    """A ring as run lengths and a bar as polygon of two parts, in four pictures."""
    images, annotations = [], []
    for index in range(4):
        picture = np.full((60, 80, 3), 40, np.uint8)
        x, y = 5 + 10 * index, 8
        ring = np.zeros((60, 80), bool)
        ring[y : y + 30, x : x + 30] = True
        ring[y + 10 : y + 20, x + 10 : x + 20] = False
        picture[ring] = 220
        picture[45:50, 10:30] = picture[45:50, 40:70] = (200, 60, 60)
        Image.fromarray(picture).save(folder / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', height=60, width=80))
        code = rle.encode(np.asfortranarray(ring.astype(np.uint8)))
        bars = [
            [10, 45, 30, 45, 30, 50, 10, 50],
            [40, 45, 70, 45, 70, 50, 40, 50],
        ]
        for category, box, segmentation in (
            (1, [x, y, 30, 30], dict(size=[60, 80], counts=code['counts'].decode())),
            (2, [10, 45, 60, 5], bars),
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=category,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=segmentation,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def shrunk_config(folder):
    cfg = Config.fromfile(config('rfdetr-seg_nano_coco.py'))
    set_image_size(cfg, 96)
    dataset = dict(
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES, palette=[(220, 20, 60), (0, 80, 255)]),
    )
    loader = dict(
        batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset
    )
    metric = dict(ann_file=str(folder / 'annotations.json'))
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / 'work'),
            model=dict(
                precision=None,
                num_queries=8,
                num_groups=2,
                backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
                neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
                decoder=dict(
                    num_layers=2,
                    self_attn_heads=2,
                    cross_attn_heads=2,
                    feedforward_channels=32,
                ),
                bbox_head=dict(num_classes=2),
                test_cfg=dict(max_per_img=6),
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=metric,
            test_evaluator=metric,
            optim_wrapper=dict(device_type='cpu', dtype='float32'),
            train_cfg=dict(max_epochs=1),
            custom_hooks=[dict(type='RFDETRValLossHook')],
        )
    )
    return cfg
