"""LoRA and DoRA adapters on the encoder's attention, through ``peft``."""

import functools

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.names import PARTS
from ..errors import MissingPackageError, SettingError
from ..models import RFDETRBackbone
from .backbone import register_backbone_adapter
from .lora_entries import SCALE

DEFAULTS = dict(r=16, alpha=16, use_dora=True)
"""Those of the official package: DoRA of rank 16, scaled by alpha / r = 1."""


class SplitQKV(nn.Module):
    """Query, key and value as three layers, each of which can have an adapter.

    Args:
        packed: the layer (C to 3C) that computes all three.
    """

    def __init__(self, packed: nn.Linear) -> None:
        super().__init__()
        rows = packed.weight.detach().chunk(3), packed.bias.detach().chunk(3)
        for part, weight, bias in zip(PARTS, *rows, strict=True):
            layer = nn.Linear(packed.in_features, packed.in_features)
            layer.weight = nn.Parameter(weight.clone())
            layer.bias = nn.Parameter(bias.clone())
            setattr(self, part, layer)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., 3C)."""
        return torch.cat([getattr(self, part)(x) for part in PARTS], dim=-1)

    def packed(self) -> tuple[Tensor, Tensor]:
        """Add the adapters for good; weight (3C, C) and bias (3C,) of one layer."""
        parts = [getattr(self, part) for part in PARTS]
        for part in parts:
            part.merge()
        layers = [part.base_layer for part in parts]
        return (
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.bias for layer in layers]),
        )


@MODELS.register_module(name='RFDETRBackbone', force=True)
@functools.wraps(RFDETRBackbone, updated=())  # whose settings errors and tools look up
def build_backbone(*, lora: dict | None = None, **settings) -> RFDETRBackbone:
    """Build a backbone that loads ViTs of others, with adapters if its config asks.

    Args:
        lora: None, or ``dict(r=16, alpha=16, use_dora=True)`` to train adapters on
            query, key and value in place of the encoder; see :func:`add_adapters`.
        **settings: those of :class:`RFDETRBackbone`, which refuses others.
    """
    backbone = RFDETRBackbone(**settings)
    register_backbone_adapter(backbone)
    if lora is not None:
        add_adapters(backbone, lora)
    return backbone


def add_adapters(backbone: nn.Module, lora: dict) -> None:
    """Freeze the encoder and give its query, key and value layers adapters.

    The adapters are the only parameters of the encoder that are trained then.

    Args:
        backbone: an ``RFDETRBackbone``.
        lora: may set ``r`` (the rank, 16), ``alpha`` (16; the adapters' product is
            scaled by alpha / r) and ``use_dora`` (True).

    Raises:
        SettingError: if a key of ``lora`` is unknown.
        ImportError: if ``peft`` is not installed.
    """
    unknown = sorted(set(lora) - set(DEFAULTS))
    if unknown:
        raise SettingError(
            f'model.backbone.lora has unknown keys {unknown}; it knows '
            f'{sorted(DEFAULTS)}'
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPackageError(
            'model.backbone.lora needs peft: install it with pip install '
            "'mmdet_rfdetr[lora]', or set model.backbone.lora=None."
        ) from error
    settings = {**DEFAULTS, **lora}
    for block in backbone.blocks:
        block.attn.qkv = SplitQKV(block.attn.qkv)
    config = LoraConfig(
        r=settings['r'],
        lora_alpha=settings['alpha'],
        use_dora=settings['use_dora'],
        target_modules=list(PARTS),
    )
    inject_adapter_in_model(config, backbone)
    # A file has to say by how much its adapters are scaled, to be merged.
    scale = torch.tensor(settings['alpha'] / settings['r'])
    backbone.register_buffer(SCALE, scale)
