"""The decoder: queries attend to each other in groups and to the memory."""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import SettingError, check_counts
from ..ops.constants import constant
from ..precision import float32_island
from .deformable_attention import MultiScaleDeformableAttention
from .memory import Memory
from .relu_mlp import ReLUMLP


@float32_island()
def sine_embedding(boxes: Tensor, embed_dims: int) -> Tensor:
    """Sine and cosine features of the four numbers of a box.

    Args:
        boxes: (..., 4) cxcywh in [0, 1].
        embed_dims: D, so D/2 features a number.

    Returns:
        (..., 2*D) float32, for cy, cx, w, h in this order, sine and cosine
        interleaved, temperature 10000.
    """
    cx, cy, w, h = boxes.float().unbind(-1)
    ordered = torch.stack((cy, cx, w, h), dim=-1)[..., None]
    angles = ordered * (2 * math.pi) / _wavelengths(embed_dims // 2, boxes.device)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-3)


@constant
def _wavelengths(count: int, device: torch.device) -> Tensor:
    """Ascending from 1, each for the sine and the cosine of ``count`` features."""
    return 10000 ** (torch.arange(0, count, 2, device=device) / count)


class GroupSelfAttention(nn.Module):
    """Multi-head attention in which only queries of the same group meet.

    Parameters carry the names of :class:`torch.nn.MultiheadAttention`.

    Args:
        embed_dims: width D.
        num_heads: attention heads.

    Attributes:
        mask: (N / g, N / g), True where a query of a group may look at another one;
            None is everywhere.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dims, embed_dims))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * embed_dims))
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.register_buffer('mask', None)

    def forward(self, query: Tensor, query_pos: Tensor, num_groups: int) -> Tensor:
        """Attend.

        Args:
            query: (B, N, D), group-major, the value.
            query_pos: (B, N, D), added for queries and keys only.
            num_groups: g; the N queries are g groups of equal size.

        Returns:
            (B, N, D).
        """
        batch, count, width = query.shape
        weights = self.in_proj_weight.split((2 * width, width))
        biases = self.in_proj_bias.split((2 * width, width))
        positioned = F.linear(query + query_pos, weights[0], biases[0])
        value = F.linear(query, weights[1], biases[1])
        heads = batch * num_groups, count // num_groups, self.num_heads, -1
        q, k, v = (
            x.reshape(heads).transpose(1, 2)
            for x in (*positioned.chunk(2, dim=-1), value)
        )
        x = F.scaled_dot_product_attention(q, k, v, self.mask)
        return self.out_proj(x.transpose(1, 2).reshape(batch, count, width))


class DecoderLayer(nn.Module):
    """Post-norm layer: self-attention, deformable attention, feed-forward.

    Args:
        embed_dims: width D.
        self_attn_heads: heads of the attention among queries.
        cross_attn_heads: heads of the deformable attention.
        num_levels: L.
        num_points: P, points of each head in each level.
        feedforward_channels: hidden width of the feed-forward part.
        dropout: probability, in every residual branch.

    Raises:
        SettingError: if the width does not divide by a number of heads.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        self_attn_heads: int,
        cross_attn_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_channels: int = 2048,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        heads = dict(self_attn_heads=self_attn_heads, cross_attn_heads=cross_attn_heads)
        counts = dict(heads, num_points=num_points)
        check_counts(**{f'decoder__{key}': count for key, count in counts.items()})
        for key, count in heads.items():
            if embed_dims % count:
                raise SettingError(
                    f'embed_dims={embed_dims} does not divide by {key}={count}'
                )
        self.self_attn = GroupSelfAttention(embed_dims, self_attn_heads)
        sizes = dict(num_levels=num_levels, num_points=num_points)
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dims=embed_dims, num_heads=cross_attn_heads, **sizes
        )
        self.linear1 = nn.Linear(embed_dims, feedforward_channels)
        self.linear2 = nn.Linear(feedforward_channels, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, query_pos: Tensor, num_groups: int, **memory_inputs
    ) -> Tensor:
        """Refine the queries (B, N, D); the inputs are those of the attentions."""
        drop = self.dropout
        query = self.norm1(query + drop(self.self_attn(query, query_pos, num_groups)))
        attended = self.cross_attn(query + query_pos, **memory_inputs)
        query = self.norm2(query + drop(attended))
        # Rows, since a change in place to a view would copy gradients.
        in_place = self.training and not torch.compiler.is_compiling()
        hidden = F.relu(self.linear1(query.flatten(0, 1)), in_place)
        return self.norm3(query + drop(self.linear2(drop(hidden))).view_as(query))


class TokenStream:
    """Tokens of a task that run through the decoder beside its queries.

    It lives for one batch; the parameters are those of a task head.
    """

    def start(self, query: Tensor, query_pos: Tensor, **memory_inputs) -> None:
        """Begin, before the first layer.

        Args:
            query: (B, N, D) content of the queries, the same for every image.
            query_pos: (B, N, D) their positions.
            **memory_inputs: ``memory``, what the queries read, and
                ``reference_points`` (B, N, L, 4) cxcywh relative to each level.
        """

    def after_layer(self, query: Tensor) -> Tensor:
        """Take the queries (B, N, D) of a layer and give those for the next one."""
        return query


class RFDETRDecoder(BaseModule):
    """Decoder whose reference boxes stay the same in all layers.

    Positions are computed once from the initial reference boxes and reused (the
    official name is ``lite_refpoint_refine``).

    Args:
        num_layers: number of layers. As an attribute it may become smaller, and the
            first so many run; with 0 the model gives the outputs of the encoder.
        embed_dims: width D.
        **layer: the other arguments of :class:`DecoderLayer`.
    """

    def __init__(self, *, num_layers: int, embed_dims: int, **layer) -> None:
        super().__init__()
        # None but the encoder's outputs is a model too, as in the official package.
        check_counts(decoder__num_layers=num_layers if num_layers != 0 else 1)
        self.num_layers = num_layers
        self.embed_dims = embed_dims
        first = DecoderLayer(embed_dims=embed_dims, **layer)
        # Copies, so that the biases of all layers start from the same numbers.
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(num_layers))
        self.norm = nn.LayerNorm(embed_dims)
        self.ref_point_head = ReLUMLP(
            nn.Linear(width, embed_dims) for width in (2 * embed_dims, embed_dims)
        )
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in self.layers:
            layer.cross_attn.reset_parameters()

    def forward(
        self,
        query: Tensor,
        *,
        references: Tensor,
        memory: Memory,
        num_groups: int,
        last_only: bool = False,
        streams: Sequence[TokenStream] = (),
    ) -> Tensor:
        """Run the layers.

        Args:
            query: (B, N, D) content of the queries, group-major.
            references: (B, N, 4) cxcywh relative to the unpadded image.
            memory: what the queries read.
            num_groups: g, attention among queries stays inside a group.
            last_only: give the output of the last layer alone.
            streams: what runs beside the queries.

        Returns:
            (layers, B, N, D), normalised output of every layer, or (1, B, N, D); of no
            layer (0, B, N, D).
        """
        if not self.num_layers:
            return query[None][:0]
        reference_points = memory.relative_to_levels(references)
        positions = sine_embedding(reference_points[:, :, 0], self.embed_dims)
        query_pos = self.ref_point_head(positions)
        memory_inputs = dict(memory=memory, reference_points=reference_points)
        outputs = []
        for stream in streams:
            stream.start(query, query_pos, **memory_inputs)
        for layer in list(self.layers)[: self.num_layers]:
            query = layer(query, query_pos, num_groups, **memory_inputs)
            for stream in streams:
                query = stream.after_layer(query)
            if not last_only:
                outputs.append(self.norm(query))
        return self.norm(query)[None] if last_only else torch.stack(outputs)
