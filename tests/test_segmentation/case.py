"""The segmentation case of the fixtures, and small models with masks."""

import numpy as np
import torch
from mmdet.structures.mask import BitmapMasks

from tests import parity
from tests.fixtures import load_json, rule

NAMES = ('aux0', 'aux1', 'aux2', 'final', 'enc')
"""Stages of the fixture's model in the order in which this package holds them."""


def with_masks(config, points=None):
    """Give the config of a detection model what instance segmentation needs.

    Args:
        config: from :func:`tests.parity.model_config`.
        points: source of the random points, in the matching and in the loss.
    """
    source = {} if points is None else dict(points=points)
    config['mask_head'] = dict(type='RFDETRMaskHead')
    config['bbox_head']['loss_mask'] = dict(type='RFDETRPointMaskLoss', **source)
    config['train_cfg']['assigner'].update(source)
    return config


def build(*, training, points=None):
    """Model of the fixture, with its weights, and the fixture's config."""
    config = load_json('seg_nano/config')
    sizes = dict(config['model'])
    seed = config['case_seed']
    if training:
        sizes.update(config['train_overrides'])
        seed = config['train_case_seed']
    make_weight = rule().weight
    model = parity.build_model(
        with_masks(parity.model_config(sizes, config['num_logits']), points),
        lambda name, shape: make_weight(name, shape, seed),
    )
    return model, config


def images(config, kind):
    """Input of the fixture, ``kind`` is ``eval`` or ``train``."""
    sizes = config[f'{kind}_input']
    seed = config['case_seed' if kind == 'eval' else 'train_case_seed']
    return torch.from_numpy(rule().image_batch(seed, len(sizes), *sizes[0]))


def training_samples(config):
    """Data samples of the fixture's training step, with masks."""
    sizes = config['train_input']
    targets = rule().targets(
        config['train_case_seed'],
        config['target_counts'],
        config['num_logits'],
        sizes[0],
    )
    return add_masks(parity.make_samples(sizes, sizes[0], targets), targets)


def add_masks(samples, targets):
    """Put the bool ``masks`` (n, h, w) of the targets into the samples."""
    for sample, target in zip(samples, targets, strict=True):
        masks = target['masks'].astype(np.uint8)
        sample.gt_instances.masks = BitmapMasks(masks, *masks.shape[1:])
    return samples


def tiny_config(**changes):
    """A model that is small enough to train in a test: 24 x 24 masks at 96 px."""
    sizes = dict(
        encoder='dinov2_windowed_small',
        vit=dict(hidden_size=32, num_attention_heads=2),
        num_queries=10,
        num_select=10,
        group_detr=3,
        patch_size=8,
        num_windows=2,
        out_feature_indexes=[1, 2],
        positional_encoding_size=12,
        hidden_dim=32,
        projector_scale=['P4'],
        dec_layers=2,
        sa_nheads=2,
        ca_nheads=2,
        dec_n_points=2,
        dim_feedforward=64,
    )
    sizes.update(changes)
    return with_masks(parity.model_config(sizes, 5))
