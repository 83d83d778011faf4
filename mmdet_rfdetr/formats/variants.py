"""Naming the shipped configs that a checkpoint of another variant looks like."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path

from ..checkpoints.variants import EXPLANATIONS, Entries, Sizes
from ..models.detector import MODEL_KEYS
from ..shipped import config


def name_config(entries: Entries, sizes: Sizes, info: Mapping) -> str | None:
    """Say which config of this package a checkpoint looks like, and what to do.

    Args:
        entries: State dict of the checkpoint, in this package's names.
        sizes: What tells it from other variants.
        info: What it says about itself.

    Returns:
        A few words; None if no config has these sizes.
    """
    configs = ' or '.join(_shipped_configs(entries, sizes))
    if not configs and sizes['keypoints'] == 'yes':
        return 'it looks like a keypoint model: use a config rfdetr-pose_*_coco.py'
    if not configs:
        return None
    return f'it looks like {configs}: use that config, or a file for this one'


EXPLANATIONS.append(name_config)


def _sizes_of_config(model: Mapping) -> Sizes:
    """What tells the variants apart, of the ``model`` part of a config."""
    return {
        'vit width': model['backbone']['embed_dims'],
        'patch size': model['backbone']['patch_size'],
        'decoder layers': model['decoder']['num_layers'],
        'decoder width': model['neck']['out_channels'],
        'levels': len(model['neck'].get('scales', ('P4',))),
        'masks': 'no' if model.get('mask_head') is None else 'yes',
        'keypoints': 'no' if model.get('keypoint_head') is None else 'yes',
    }


def _shipped_configs(entries: Entries, sizes: Sizes) -> list[str]:
    """Name the configs of this package that describe a network.

    If none has the position grid, these are all that agree in the other sizes, since
    models of any input size share them.
    """
    grids = {name: side for name, own, side in _read_configs() if own == sizes}
    grid = grids and math.isqrt(entries['backbone.pos_embed'].shape[1] - 1)
    return [name for name, side in grids.items() if side == grid] or list(grids)


@functools.cache
def _read_configs() -> list[tuple[str, dict, int]]:
    """Name, sizes and side of the position grid of every shipped config."""
    from mmengine.config import Config

    paths = sorted(Path(config('rfdetr_coco.py')).parent.glob('rfdetr*_coco.py'))
    models = [
        Config.fromfile(path, import_custom_modules=False).model for path in paths
    ]
    return [
        (path.name, _sizes_of_config(model), model['backbone']['pos_embed_size'])
        for path, model in zip(paths, models, strict=True)
        if not MODEL_KEYS.keys() & model.keys()  # more than a variant
    ]
