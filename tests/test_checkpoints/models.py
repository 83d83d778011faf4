"""Small RF-DETR models, and official weights of their sizes."""

from mmdet.registry import MODELS

from tests.factory import model_config

from .official import official_state

OFFICIAL_SIZES = {
    '_scope_': 'mmdet',
    'precision': None,
    'num_queries': 5,
    'num_groups': 3,
    'data_preprocessor': dict(type='DetDataPreprocessor'),
    'backbone.embed_dims': 8,
    'backbone.num_windows': 1,
    'backbone.out_indices': (3, 6, 9, 12),
    'backbone.pos_embed_size': 3,
    'neck': dict(type='RFDETRProjector', in_channels=[8] * 4, out_channels=16),
    'decoder.cross_attn_heads': 4,
    'bbox_head.num_classes': 7,
    'test_cfg.max_per_img': 5,
}
"""Of a model whose sizes are the defaults of ``official_state``."""


def tiny_config(**changes):
    """Config of that model with changes by dotted name."""
    return model_config(**{**OFFICIAL_SIZES, **changes})


def build_tiny(**changes):
    """Build the changed tiny model."""
    return MODELS.build(tiny_config(**changes)).eval()


def official_file(seed=0, args=None, **sizes):
    """Content of an official file for a model of these sizes."""
    default = {'num_queries': sizes.get('num_queries', 5)}
    default['group_detr'] = sizes.get('num_groups', 3)
    return {'model': official_state(seed, **sizes), 'args': args or default}
