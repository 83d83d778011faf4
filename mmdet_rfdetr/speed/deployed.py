"""A trained model rearranged for inference: the same numbers, sooner.

The layer scales and adapters of the ViT become part of its weights, weights are kept
in the dtype that the precision policy casts them to anyway, and on a CPU linear layers
are packed and one operator with what follows them. None of this can be trained, and
none of it fits a checkpoint.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.backbone import Attention, Block, RFDETRBackbone
from ..models.decoder import GroupSelfAttention
from ..models.query_selection import GroupLinear
from ..ops.resampling import resample_patch_kernel
from .packed_linear import PackedLinear, PackedMLP

CAST = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, GroupLinear, GroupSelfAttention)
"""Modules whose own parameters autocast casts in every forward."""


class DeployedAttention(nn.Module):
    """:class:`Attention` of constant weights, times a layer scale."""

    def __init__(self, attention: Attention, scale: Tensor) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv = PackedLinear(*_merged(attention.qkv))
        self.proj = _scaled(attention.proj, scale)

    def forward(self, x: Tensor, rows: int, residual: Tensor) -> Tensor:
        """Attend within each of the rows of ``x`` (rows * tokens, C), and add up."""
        query, key, value = (
            self.qkv(x)
            .view(rows, x.shape[0] // rows, 3, self.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(x.shape), residual)


class DeployedBlock(nn.Module):
    """:class:`Block` of constant weights."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1 = block.norm1
        self.attn = DeployedAttention(block.attn, block.layer_scale1)
        self.norm2 = block.norm2
        self.fc1 = PackedLinear(block.mlp.fc1.weight, block.mlp.fc1.bias, 'gelu')
        self.fc2 = _scaled(block.mlp.fc2, block.layer_scale2)

    def forward(self, x: Tensor, windows: int) -> Tensor:
        """Transform windowed tokens (B * num_windows**2, tokens, C)."""
        tokens = x.view(-1, x.shape[-1])
        tokens = self.attn(self.norm1(tokens), x.shape[0] // windows, tokens)
        tokens = self.fc2(self.fc1(self.norm2(tokens)), tokens)
        return tokens.view(x.shape)


def _merged(qkv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the packed layer, with adapters added to the weight."""
    if isinstance(qkv, nn.Linear):
        return qkv.weight, qkv.bias
    return qkv.packed()


def _scaled(linear: nn.Linear, scale: Tensor) -> PackedLinear:
    return PackedLinear(linear.weight * scale[:, None], linear.bias * scale)


@torch.no_grad()
def deploy(model: nn.Module, dtype: torch.dtype) -> None:
    """Rearrange the modules of a detector in place.

    Args:
        model: an ``RFDETR``.
        dtype: what its precision policy casts to on its device; float32: nothing.
    """
    backbone = model.backbone
    # What a project puts in their place, or derives from them, has numbers of its own.
    if type(backbone) is RFDETRBackbone:
        layer, side = backbone.patch_embed, backbone.patch_size
        kernel = resample_patch_kernel(layer.weight, side)
        layer.weight, layer.stride = nn.Parameter(kernel), (side, side)
        layer.kernel_size = side, side
        backbone.blocks = nn.ModuleList(map(DeployedBlock, backbone.blocks))
    first_group = [(x.weight[0], x.bias[0]) for x in model.query_selection.fc_reg]
    model.query_selection.fc_reg = PackedMLP(first_group)
    model.bbox_head.fc_reg = PackedMLP(
        [(x.weight, x.bias) for x in model.bbox_head.fc_reg]
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, (*CAST, PackedLinear)):
                own = module.parameters(recurse=False), module.buffers(recurse=False)
                for tensor in itertools.chain(*own):
                    tensor.data = tensor.data.to(dtype)
