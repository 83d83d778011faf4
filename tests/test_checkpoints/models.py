"""Small RF-DETR models, and official weights of their sizes."""

import copy

from mmdet.registry import MODELS

from .official import official_state

TINY = dict(
    _scope_='mmdet',
    type='RFDETR',
    num_queries=5,
    num_groups=3,
    precision=None,
    data_preprocessor=dict(type='DetDataPreprocessor'),
    backbone=dict(
        type='RFDETRBackbone',
        embed_dims=8,
        num_heads=2,
        patch_size=4,
        num_windows=1,
        out_indices=(3, 6, 9, 12),
        pos_embed_size=3,
    ),
    neck=dict(type='RFDETRProjector', in_channels=[8] * 4, out_channels=16),
    decoder=dict(
        num_layers=2,
        self_attn_heads=2,
        cross_attn_heads=4,
        num_points=2,
        feedforward_channels=32,
    ),
    bbox_head=dict(
        type='RFDETRHead',
        num_classes=7,
        loss_cls=dict(type='RFDETRIoUAwareBCELoss', alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0, eps=1e-7),
    ),
    train_cfg=dict(
        assigner=dict(
            type='RFDETRHungarianAssigner',
            cls_weight=2.0,
            bbox_weight=5.0,
            iou_weight=2.0,
        )
    ),
    test_cfg=dict(max_per_img=5),
)
"""Config of a model whose sizes are the defaults of ``official_state``."""


def tiny_config(**changes):
    """``TINY`` with changes by dotted name, e.g. ``{'bbox_head.num_classes': 3}``."""
    config = copy.deepcopy(TINY)
    for name, value in changes.items():
        *path, last = name.split('.')
        part = config
        for key in path:
            part = part[key]
        part[last] = value
    return config


def build_tiny(**changes):
    """Build the changed tiny model."""
    return MODELS.build(tiny_config(**changes)).eval()


def official_file(seed=0, args=None, **sizes):
    """Content of an official file for a model of these sizes."""
    default = {'num_queries': sizes.get('num_queries', 5)}
    default['group_detr'] = sizes.get('num_groups', 3)
    return {'model': official_state(seed, **sizes), 'args': args or default}
