"""What a state dict tells about the network that it belongs to.

Sizes that a checkpoint cannot be adapted to are compared here, so that a file of
another variant is refused with a name rather than with a list of shapes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import CheckpointError
from ..shipped import config
from .names import count_members

Shapes = Mapping[str, Sequence[int]]
Sizes = dict[str, int | bool | tuple[str, ...]]
"""What tells the variants apart, by the words for it."""


def refuse_another_variant(file: Shapes, model: Shapes) -> None:
    """Stop if a checkpoint belongs to another network than the model.

    Args:
        file: Names to shapes of the checkpoint, in this package's names; those that
            tell such a state dict from others must be there, see
            :func:`~.names.is_own`.
        model: Names to shapes of the model.

    Raises:
        CheckpointError: it does; the message names the variant that it looks like.
    """
    found, own = _sizes_of_shapes(file), _sizes_of_shapes(model)
    differences = [
        f'{name} {_show(size)} (model: {_show(own[name])})'
        for name, size in found.items()
        if size != own[name]
    ]
    if not differences:
        return
    if found['keypoints']:
        looks, advice = 'a keypoint model', 'this package has no keypoint models'
    elif configs := _shipped_configs(file):
        looks, advice = ' or '.join(configs), 'use that config, or a file for this one'
    else:
        looks, advice = 'no shipped config', 'use the config that it was trained with'
    raise CheckpointError(
        f'The checkpoint belongs to another variant of RF-DETR, it looks like {looks}: '
        f'{", ".join(differences)}; {advice}.'
    )


def _sizes_of_shapes(shapes: Shapes) -> Sizes:
    kernel = shapes.get('backbone.patch_embed.weight', (None,))  # another backbone
    num_stages = count_members(shapes, 'neck.stages.')
    return {
        'vit width': kernel[0],
        'patch size': kernel[-1],
        'decoder layers': count_members(shapes, 'decoder.layers.'),
        'decoder width': shapes['decoder.norm.weight'][0],
        'levels': tuple(_level(shapes, stage) for stage in range(num_stages)),
        'masks': any(name.startswith('mask_head.') for name in shapes),
        'keypoints': any('keypoint' in name for name in shapes),
    }


def _sizes_of_config(model: Mapping) -> Sizes:
    """The same of the ``model`` part of a config."""
    return {
        'vit width': model['backbone']['embed_dims'],
        'patch size': model['backbone']['patch_size'],
        'decoder layers': model['decoder']['num_layers'],
        'decoder width': model['neck']['out_channels'],
        'levels': tuple(model['neck'].get('scales', ('P4',))),
        'masks': model.get('mask_head') is not None,
        'keypoints': False,
    }


def _shipped_configs(shapes: Shapes) -> list[str]:
    """Name the configs of this package that describe a network.

    If none has the position grid, these are all that agree in the other sizes, since
    models of any input size share them.
    """
    from mmengine.config import Config

    grids = {}
    for path in sorted(Path(config('rfdetr_coco.py')).parent.glob('rfdetr*_coco.py')):
        model = Config.fromfile(path, import_custom_modules=False).model
        if _sizes_of_config(model) == _sizes_of_shapes(shapes):
            grids[path.name] = model['backbone']['pos_embed_size']
    grid = grids and math.isqrt(shapes['backbone.pos_embed'][1] - 1)
    return [name for name, side in grids.items() if side == grid] or list(grids)


def _level(shapes: Shapes, stage: int) -> str:
    """A projector stage's level, by the parameters of its first branch."""
    branch = f'neck.stages.{stage}.branches.0.'
    if branch + 'weight' in shapes:
        return 'P3'
    return 'P5' if branch + 'conv.weight' in shapes else 'P4'


def _show(value) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '+'.join(value) if isinstance(value, tuple) else str(value)
