"""Whether the parts that a config combines fit each other, before they run."""

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..errors import ExplainedError, SettingError
from .backbone import RFDETRBackbone
from .projector import RFDETRProjector


def check_losses(loss_cls: dict, loss_bbox: dict) -> None:
    """Refuse losses that are called otherwise than those of this package.

    Args:
        loss_cls: config of the classification loss.
        loss_bbox: config of the loss of cxcywh boxes.

    Raises:
        SettingError: naming those that can be used.
    """
    kind = kind_of(loss_cls)
    # Its forward may be one of its own: what counts is where that stands.
    if kind is not None and kind.forward.__module__.startswith(
        ('mmdet.', 'mmpretrain.', 'torch.')
    ):
        raise SettingError(
            f'bbox_head.loss_cls.type={kind.__name__} is called for the queries of one '
            'image: set RFDETRIoUAwareBCELoss, another one of mmdet_rfdetr.losses, or '
            'one of yours with their call, which takes all matches at once'
        )
    kind = kind_of(loss_bbox)
    if kind is not None and kind.__name__.endswith('IoULoss'):
        raise SettingError(
            f'bbox_head.loss_bbox.type={kind.__name__} takes boxes by their corners, '
            'and loss_bbox gets centres and sizes: set it as bbox_head.loss_iou.type'
        )


def kind_of(cfg: dict) -> type | None:
    """The class that a config names, or None: building it gives the error."""
    kind = cfg.get('type')
    return MODELS.get(kind) if isinstance(kind, str) else kind


def count_levels(model: nn.Module, width: int, wanted: int | None) -> int:
    """Find out how many maps the neck of a model gives, and check them.

    Other parts than those of this package see a small black image.

    Args:
        model: with ``backbone``, ``neck`` and ``data_preprocessor``.
        width: channels D of the maps.
        wanted: ``decoder.num_levels`` of the config, or None.

    Returns:
        L.

    Raises:
        SettingError: backbone, neck and decoder do not fit each other.
    """
    backbone, neck = model.backbone, model.neck
    known = isinstance(backbone, RFDETRBackbone) and isinstance(neck, RFDETRProjector)
    if known:
        count = len(neck.stages)
    else:
        levels = _levels_of_a_small_image(model)
        count = len(levels)
        channels = [each.shape[1] for each in levels]
        if set(channels) != {width}:
            raise SettingError(
                f'{type(neck).__name__} gives maps of {channels} channels, and '
                f'neck.out_channels={width}: all have to have so many'
            )
    if wanted not in (None, count):
        raise SettingError(
            f'decoder.num_levels={wanted}, and {type(neck).__name__} gives {count} '
            'maps: make them equal, or leave decoder.num_levels out'
        )
    return count


@torch.no_grad()
def _levels_of_a_small_image(model: nn.Module) -> Sequence[Tensor]:
    """What backbone and neck, neither of them in use yet, make of a black image."""
    backbone, neck = model.backbone, model.neck
    for part in (backbone, neck):
        part.eval()
    side = 2 * getattr(backbone, 'size_divisor', 64)
    mean = getattr(model.data_preprocessor, 'mean', None)
    channels = 3 if mean is None else len(mean)
    device = next(backbone.parameters()).device
    shapes: list = []
    try:
        maps = backbone(torch.zeros(1, channels, side, side, device=device))
        shapes = [tuple(each.shape[1:]) for each in maps]
        levels = neck(maps)
        if not all(each.dim() == 4 for each in levels):
            raise ValueError('the neck does not give maps (B, C, h, w)')
    except ExplainedError:
        raise
    except Exception as error:  # of anybody's parts
        raise SettingError(
            f'{type(backbone).__name__} gives maps (C, h, w) of {shapes} for an image '
            f'of {side} pixels, which {type(neck).__name__} does not take '
            f'({type(error).__name__}: {error}): choose a neck for them, for example '
            'ChannelMapper, or other in_channels'
        ) from error
    finally:
        for part in (backbone, neck):
            part.train()
    return levels
