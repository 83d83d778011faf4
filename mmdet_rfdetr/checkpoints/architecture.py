"""What a state dict tells about the network that it belongs to.

Sizes that a checkpoint cannot be adapted to are compared here, so that a file of
another variant is refused with a name rather than with a list of shapes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from .errors import CheckpointError
from .names import count_members

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Architecture:
    """The sizes that tell the variants apart."""

    vit_width: int
    patch_size: int
    position_grid: int
    decoder_layers: int
    decoder_width: int
    levels: tuple[str, ...]
    masks: bool
    keypoints: bool

    @classmethod
    def of_shapes(cls, shapes: Shapes) -> 'Architecture':
        """Read the sizes off a state dict with this package's names.

        Args:
            shapes: Names to shapes; those that tell such a state dict from others
                must be there, see :func:`~.names.is_own`.
        """
        kernel = shapes['backbone.patch_embed.weight']
        num_stages = count_members(shapes, 'neck.stages.')
        return cls(
            vit_width=kernel[0],
            patch_size=kernel[-1],
            position_grid=math.isqrt(shapes['backbone.pos_embed'][1] - 1),
            decoder_layers=count_members(shapes, 'decoder.layers.'),
            decoder_width=shapes['decoder.norm.weight'][0],
            levels=tuple(_level(shapes, stage) for stage in range(num_stages)),
            masks=any(name.startswith('mask_head.') for name in shapes),
            keypoints=any('keypoint' in name for name in shapes),
        )

    @classmethod
    def of_config(cls, model: Mapping) -> 'Architecture':
        """Read the sizes off the ``model`` part of a config.

        Args:
            model: Config of an ``RFDETR`` model.
        """
        return cls(
            vit_width=model['backbone']['embed_dims'],
            patch_size=model['backbone']['patch_size'],
            position_grid=model['backbone']['pos_embed_size'],
            decoder_layers=model['decoder']['num_layers'],
            decoder_width=model['neck']['out_channels'],
            levels=tuple(model['neck'].get('scales', ('P4',))),
            masks=model.get('mask_head') is not None,
            keypoints=False,
        )

    def differences(self, other: 'Architecture') -> list[str]:
        """List what keeps weights of this network from fitting another one.

        Args:
            other: The network to fit; its position grid may be another one, since
                that table is resized.

        Returns:
            One short text per size that differs, with both values.
        """
        texts = []
        for field in fields(self):
            mine, others = getattr(self, field.name), getattr(other, field.name)
            if mine != others and field.name != 'position_grid':
                name = field.name.replace('_', ' ')
                texts.append(f'{name} {_show(mine)} (model: {_show(others)})')
        return texts

    def shipped_configs(self) -> list[str]:
        """Name the configs of this package that describe this network.

        Returns:
            File names; if none has the position grid, those that agree in all else,
            since models of any input size share their other sizes.
        """
        # At the top this would be a circle; it is needed for an error message only.
        from mmengine.config import Config

        from mmdet_rfdetr import config

        folder = Path(config('rfdetr_coco.py')).parent
        found = {
            path.name: Architecture.of_config(
                Config.fromfile(path, import_custom_modules=False).model
            )
            for path in sorted(folder.glob('rfdetr*_coco.py'))
        }
        exact = [name for name, sizes in found.items() if sizes == self]
        return exact or [
            name
            for name, sizes in found.items()
            if replace(sizes, position_grid=self.position_grid) == self
        ]


def refuse_another_variant(file: Shapes, model: Shapes) -> None:
    """Stop if a checkpoint belongs to another network than the model.

    Args:
        file: Names to shapes of the checkpoint, in this package's names.
        model: Names to shapes of the model.

    Raises:
        CheckpointError: it does; the message names the variant that it looks like.
    """
    found = Architecture.of_shapes(file)
    differences = found.differences(Architecture.of_shapes(model))
    if not differences:
        return
    configs = found.shipped_configs()
    if found.keypoints:
        looks, advice = 'a keypoint model', 'this package has no keypoint models'
    elif configs:
        looks, advice = ' or '.join(configs), 'use that config, or a file for this one'
    else:
        looks, advice = 'no shipped config', 'use the config that it was trained with'
    raise CheckpointError(
        f'The checkpoint belongs to another variant of RF-DETR, it looks like {looks}: '
        f'{", ".join(differences)}; {advice}.'
    )


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
