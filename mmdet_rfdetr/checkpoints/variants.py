"""What tells the variants of RF-DETR apart, in a state dict and in a config.

Sizes that a checkpoint cannot be adapted to are compared here, so that a file of
another variant is refused with a name rather than with a list of shapes.
"""

import functools
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError
from ..shipped import config
from .names import count_members

Entries = Mapping[str, Tensor]


def refuse_another_variant(file: Entries, model: Entries) -> None:
    """Stop if a checkpoint belongs to another network than the model.

    Args:
        file: State dict of the checkpoint, in this package's names; those that tell
            such a state dict from others must be there, see :func:`~.names.is_own`.
        model: State dict of the model.

    Raises:
        CheckpointError: it does; the message names the variant that it looks like.
    """
    found, own = _sizes_of_entries(file), _sizes_of_entries(model)
    differences = [
        f'{name} {size} (model: {own[name]})'
        for name, size in found.items()
        if size != own[name]
    ]
    if not differences:
        return
    if found['keypoints'] == 'yes':
        looks, advice = 'a keypoint model', 'this package has no keypoint models'
    elif configs := _shipped_configs(file, found):
        looks, advice = ' or '.join(configs), 'use that config, or a file for this one'
    else:
        looks, advice = 'no shipped config', 'use the config that it was trained with'
    raise CheckpointError(
        f'The checkpoint belongs to another variant of RF-DETR, it looks like {looks}: '
        f'{", ".join(differences)}; {advice}.'
    )


def _sizes_of_entries(entries: Entries) -> dict[str, int | str | None]:
    """What tells the variants apart, by the words for it."""
    kernel = entries.get('backbone.patch_embed.weight')  # None of another backbone
    stages = range(count_members(entries, 'neck.stages.'))
    return {
        'vit width': None if kernel is None else len(kernel),
        'patch size': None if kernel is None else kernel.shape[-1],
        'decoder layers': count_members(entries, 'decoder.layers.'),
        'decoder width': len(entries['decoder.norm.weight']),
        'levels': '+'.join(_level(entries, stage) for stage in stages),
        'masks': _yes(any(name.startswith('mask_head.') for name in entries)),
        'keypoints': _yes(any('keypoint' in name for name in entries)),
    }


def _sizes_of_config(model: Mapping) -> dict[str, int | str | None]:
    """The same of the ``model`` part of a config."""
    return {
        'vit width': model['backbone']['embed_dims'],
        'patch size': model['backbone']['patch_size'],
        'decoder layers': model['decoder']['num_layers'],
        'decoder width': model['neck']['out_channels'],
        'levels': '+'.join(model['neck'].get('scales', ('P4',))),
        'masks': _yes(model.get('mask_head') is not None),
        'keypoints': 'no',
    }


def _shipped_configs(entries: Entries, sizes: Mapping) -> list[str]:
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
    ]


def _level(entries: Entries, stage: int) -> str:
    """A projector stage's level, by the parameters of its first branch."""
    branch = f'neck.stages.{stage}.branches.0.'
    if branch + 'weight' in entries:
        return 'P3'
    return 'P5' if branch + 'conv.weight' in entries else 'P4'


def _yes(value: bool) -> str:
    return 'yes' if value else 'no'
