"""A project small enough to train, evaluate and resume within a second."""

import copy
import json

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from tests.test_checkpoints.models import tiny_config

SIDE = 64
IMAGES = 4
CLASSES = ('left', 'right')


def write_images(folder):
    """Draw one rectangle a picture, and write pictures and COCO annotations."""
    images, annotations = [], []
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        picture = generator.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
        x, y, w, h = 8 + 6 * index, 10 + 4 * index, 24, 20
        picture[y : y + h, x : x + w] = 200
        cv2.imwrite(str(folder / f'{index}.png'), picture)
        images.append(dict(id=index, file_name=f'{index}.png', height=SIDE, width=SIDE))
        annotations.append(
            dict(
                id=index + 1,
                image_id=index,
                category_id=1 + index % 2,
                bbox=[x, y, w, h],
                area=w * h,
                iscrowd=0,
            )
        )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def model_config(precision):
    """A shrunk RF-DETR: one windowed and one global block, two decoder layers."""
    return tiny_config(
        precision=precision,
        num_queries=10,
        num_groups=2,
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='RFDETRBackbone',
            embed_dims=32,
            num_heads=2,
            patch_size=16,
            num_windows=2,
            out_indices=(1, 2),
            pos_embed_size=4,
        ),
        neck=dict(type='RFDETRProjector', in_channels=[32, 32], out_channels=32),
        **{'bbox_head.num_classes': len(CLASSES), 'test_cfg.max_per_img': 10},
    )


def project_config(folder, work_dir, device_type='cpu', dtype='bfloat16'):
    """A whole config, its precision pinned in the two places."""
    load = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
    ]
    pack = dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    )
    resize = dict(type='Resize', scale=(SIDE, SIDE))

    def loader(test_mode):
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(
                type='DefaultSampler' if test_mode else 'InfiniteSampler', shuffle=False
            ),
            dataset=dict(
                type='CocoDataset',
                data_root=str(folder),
                ann_file='annotations.json',
                data_prefix=dict(img=''),
                metainfo=dict(classes=CLASSES, palette=[(220, 20, 60), (0, 80, 255)]),
                pipeline=[*load, resize, pack],
                test_mode=test_mode,
                serialize_data=False,
            ),
        )

    metric = dict(
        type='CocoMetric', ann_file=str(folder / 'annotations.json'), metric='bbox'
    )
    return Config(
        dict(
            default_scope='mmdet',
            work_dir=str(work_dir),
            model=model_config(dict(device_type=device_type, dtype=dtype)),
            train_dataloader=loader(False),
            val_dataloader=loader(True),
            test_dataloader=loader(True),
            val_evaluator=metric,
            test_evaluator=metric,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                type='RFDETRAmpOptimWrapper',
                device_type=device_type,
                dtype=dtype,
                optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
                clip_grad=dict(max_norm=0.1),
                constructor='RFDETROptimWrapperConstructor',
            ),
            default_hooks=dict(
                precision=dict(type='RFDETRPrecisionHook'),
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            ),
            visualizer=dict(type='DetLocalVisualizer', vis_backends=[]),
            log_level='INFO',
            randomness=dict(seed=0),
        )
    )


def run(config, mode, *overrides):
    """Run ``config`` and return the runner.

    Args:
        config: what :func:`project_config` made; not modified.
        mode: ``'train'``, ``'val'`` or ``'test'``.
        overrides: dicts of dotted keys, as ``--cfg-options`` gives them; in order.
    """
    config = Config(copy.deepcopy(config.to_dict()))
    for override in overrides:
        config.merge_from_dict(override)
    runner = Runner.from_cfg(config)
    getattr(runner, mode)()
    return runner
