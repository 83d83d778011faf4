"""Whether the parts that a config combines fit each other, before they run."""

import torch
from mmdet.registry import MODELS
from torch import nn

from ..errors import SettingError
from .backbone import RFDETRBackbone


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


@torch.no_grad()
def count_levels(model: nn.Module, width: int, wanted: int | None) -> int:
    """Find out how many maps the neck of a model gives to a small black image.

    Args:
        model: with ``backbone`` and ``neck``, neither of them in use yet.
        width: channels D that all maps have to have.
        wanted: ``decoder.num_levels`` of the config, or None.

    Returns:
        L.

    Raises:
        SettingError: backbone, neck and decoder do not fit each other.
    """
    backbone, neck = model.backbone, model.neck
    backbone.eval()
    neck.eval()
    names = type(backbone).__name__, type(neck).__name__
    side = 2 * getattr(backbone, 'size_divisor', 64)
    if isinstance(backbone, RFDETRBackbone):  # What it gives is known.
        grid = side // backbone.patch_size
        maps = [torch.zeros(1, backbone.embed_dims, grid, grid)]
        maps *= len(backbone.out_indices)
    else:
        convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
        channels = getattr(next(convolutions, None), 'in_channels', 3)
        maps = backbone(torch.zeros(1, channels, side, side))
    try:
        channels = [level.shape[1] for level in neck(maps)]
    except Exception as error:  # of anybody's neck
        raise SettingError(
            f'{names[0]} gives maps (C, h, w) of {[tuple(x.shape[1:]) for x in maps]} '
            f'for an image of {side} pixels, which {names[1]} does not take ({error}): '
            'set neck.in_channels to theirs, or choose a neck for them, for example '
            'ChannelMapper'
        ) from error
    if wanted not in (None, len(channels)) or set(channels) != {width}:
        raise SettingError(
            f'neck.out_channels={width} and decoder.num_levels={wanted}, and '
            f'{names[1]} gives {len(channels)} maps of {channels} channels: make them '
            'equal, or leave decoder.num_levels out'
        )
    backbone.train()
    neck.train()
    return len(channels)
