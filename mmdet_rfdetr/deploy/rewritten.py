"""Parts of a network as runtimes want them: the same function in fewer nodes.

Where the model has one packed product and views of it, a graph has copies; a factor
that follows a product can be part of its weights; and a runtime adds a bias within the
product only where tokens are rows of a matrix. This is done to a copy that is exported.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..models.backbone import Attention, Block
from ..models.decoder import GroupSelfAttention
from ..models.query_selection import GroupLayerNorm, GroupLinear


def constant(tensor: Tensor) -> nn.Parameter:
    """A parameter that is not trained."""
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)


def linear(weight: Tensor, bias: Tensor, scale: Tensor | float = 1.0) -> nn.Linear:
    """A linear layer (out, in) whose outputs are multiplied by a number each."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device='meta')
    layer.weight = constant((weight.T * scale).T)
    layer.bias = constant(bias * scale)
    return layer


class HeadsAttention(nn.Module):
    """Softmax attention with a layer each for query, key, value and what follows.

    Args:
        packed: weight (3C, C) and bias (3C,) of query, key and value.
        num_heads: attention heads.
        proj: the layer that follows.
        scale: (C,) what its outputs are multiplied with, if anything.
    """

    def __init__(
        self,
        packed: tuple[Tensor, Tensor],
        num_heads: int,
        proj: nn.Linear,
        scale: Tensor | float = 1.0,
    ) -> None:
        super().__init__()
        weights, biases = (x.chunk(3) for x in packed)
        width = proj.in_features
        self.heads = num_heads, width // num_heads
        self.query = linear(weights[0], biases[0], self.heads[1] ** -0.5)
        self.key = linear(weights[1], biases[1])
        self.value = linear(weights[2], biases[2])
        self.proj = linear(proj.weight, proj.bias, scale)

    def attend(self, positioned: Tensor, x: Tensor, tokens: int) -> Tensor:
        """Attend within each so many rows.

        Args:
            positioned: (rows, C) what queries and keys are made of.
            x: (rows, C) what values are made of.
            tokens: rows that belong together.

        Returns:
            (rows, C).
        """
        query, key, value = (
            layer(rows).view(-1, tokens, *self.heads)
            for layer, rows in (
                (self.query, positioned),
                (self.key, positioned),
                (self.value, x),
            )
        )
        weights = query.transpose(1, 2) @ key.permute(0, 2, 3, 1)
        attended = weights.softmax(-1) @ value.transpose(1, 2)
        return self.proj(attended.transpose(1, 2).reshape(-1, x.shape[1]))


class RowsBlock(nn.Module):
    """:class:`Block` on tokens as rows, its layer scales within the weights."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2 = block.norm1, block.norm2
        qkv = block.attn.qkv
        packed = qkv.packed() if hasattr(qkv, 'packed') else (qkv.weight, qkv.bias)
        self.attn = HeadsAttention(
            packed, block.attn.num_heads, block.attn.proj, block.layer_scale1
        )
        self.fc1 = block.mlp.fc1
        self.fc2 = linear(block.mlp.fc2.weight, block.mlp.fc2.bias, block.layer_scale2)

    def forward(self, x: Tensor, windows: int) -> Tensor:
        """Transform windowed tokens (B * num_windows**2, tokens, C)."""
        _, tokens, width = x.shape
        rows = x.reshape(-1, width)
        normed = self.norm1(rows)
        rows = rows + self.attn.attend(normed, normed, tokens * windows)
        rows = rows + self.fc2(F.gelu(self.fc1(self.norm2(rows))))
        return rows.view(-1, tokens, width)


class QueriesAttention(HeadsAttention):
    """:class:`GroupSelfAttention` of one group."""

    def forward(self, query: Tensor, query_pos: Tensor, num_groups: int) -> Tensor:
        """Attend among queries (B, N, D) with positions (B, N, D) added."""
        count, width = query.shape[1:]
        positioned = (query + query_pos).reshape(-1, width)
        attended = self.attend(positioned, query.reshape(-1, width), count)
        return attended.view(-1, count, width)


def rewrite(model: nn.Module) -> None:
    """Rewrite the parts of a detector in place; those of projects stay as they are.

    Args:
        model: an ``RFDETR`` in evaluation mode.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if (new := _rewritten(child)) is not None:
                setattr(module, name, new)
    tables = model.query_embedding, model.reference_embedding
    model.query_embedding, model.reference_embedding = (
        constant(table[:1]) for table in tables
    )


def _rewritten(module: nn.Module) -> nn.Module | None:
    """What takes the place of a part, None if it stays."""
    if type(module) is Block and type(module.attn) is Attention:
        return RowsBlock(module)
    if type(module) is GroupSelfAttention and module.mask is None:
        packed = module.in_proj_weight, module.in_proj_bias
        return QueriesAttention(packed, module.num_heads, module.out_proj)
    if type(module) is GroupLinear:
        return linear(module.weight[0], module.bias[0])
    if type(module) is GroupLayerNorm:
        norm = nn.LayerNorm(module.weight.shape[1])
        norm.weight, norm.bias = constant(module.weight[0]), constant(module.bias[0])
        return norm
    return None
