"""Points as tokens beside each query: where they begin, what a layer makes of them."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.decoder import GroupSelfAttention, TokenStream
from ..models.deformable_attention import MultiScaleDeformableAttention
from ..models.memory import Memory
from .schema import Schema


def spread_evenly(module: nn.Module) -> None:
    """Initialise all that is no vector as the decoder's layers are."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


class PointInitialiser(nn.Module):
    """Tokens of points: learned ones, modulated by what they belong to.

    Args:
        embed_dims: width D.
        num_points: Kt.
    """

    def __init__(self, embed_dims: int, num_points: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_points, embed_dims))
        self.modulation = nn.Sequential(
            nn.Linear(embed_dims, embed_dims),
            nn.GELU(),
            nn.Linear(embed_dims, 3 * embed_dims),
        )
        nn.init.zeros_(self.modulation[-1].bias)
        self.out_proj = nn.Linear(embed_dims, embed_dims)
        spread_evenly(self)

    def forward(self, query: Tensor) -> Tensor:
        """(..., D) to (..., Kt, D)."""
        normed = F.layer_norm(self.queries, self.queries.shape[-1:])
        scale, shift, gate = self.modulation(query[..., None, :]).chunk(3, dim=-1)
        return self.out_proj((1 + scale) * normed + shift) * gate + self.queries


class PointAttention(GroupSelfAttention):
    """Attention among a query and its points; those of other classes are not seen."""

    def __init__(self, embed_dims: int, num_heads: int, schema: Schema) -> None:
        super().__init__(embed_dims, num_heads)
        if sum(map(bool, schema.counts)) > 1:
            self.register_buffer('mask', ~schema.blocked(), persistent=False)


class PointLayer(nn.Module):
    """Post-norm layer: with the query, deformable attention, feed-forward.

    Args:
        embed_dims: width D.
        schema: the points.
        self_attn_heads: heads of the attention between a query and its points.
        cross_attn_heads: heads of the deformable attention.
        num_levels: L.
        num_points: samples of each head in each level.
        dropout: probability, in every residual branch.
    """

    def __init__(
        self,
        embed_dims: int,
        schema: Schema,
        *,
        self_attn_heads: int,
        cross_attn_heads: int,
        num_levels: int,
        num_points: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attn = PointAttention(embed_dims, self_attn_heads, schema)
        self.instance_norm = nn.LayerNorm(embed_dims)
        self.instance_scale = nn.Parameter(torch.full((1,), 1e-6))
        self.cross_attn = MultiScaleDeformableAttention(
            embed_dims=embed_dims,
            num_heads=cross_attn_heads,
            num_levels=num_levels,
            num_points=num_points,
        )
        self.linear1 = nn.Linear(embed_dims, 4 * embed_dims)
        self.linear2 = nn.Linear(4 * embed_dims, embed_dims)
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        points: Tensor,
        pos_embed: Tensor,
        query_pos: Tensor,
        **memory_inputs,
    ) -> tuple[Tensor, Tensor]:
        """Refine queries and points together.

        Args:
            query: (B, N, D).
            points: (B, N, Kt, D).
            pos_embed: (Kt, D) of the points; a query has no position among them.
            query_pos: (B, N, D).
            **memory_inputs: ``memory`` and, of each point, ``reference_points``.

        Returns:
            Both, in their shapes.
        """
        drop, shape = self.dropout, points.shape
        tokens = torch.cat((query[:, :, None], points), dim=2).flatten(1, 2)
        positions = F.pad(pos_embed, (0, 0, 1, 0)).repeat(query.shape[1], 1)
        attended = self.self_attn(tokens, positions, query.shape[1])
        attended = drop(attended.unflatten(1, (query.shape[1], -1)))
        # The query is normalised once more than without points, also with a scale of 0.
        query = self.instance_norm(query + attended[:, :, 0] * self.instance_scale)
        points = self.norm1(points + attended[:, :, 1:])
        placed = (points + query_pos[:, :, None]).flatten(1, 2)
        attended = self.cross_attn(placed, **memory_inputs)
        points = self.norm2(points + drop(attended.view(shape)))
        hidden = drop(F.relu(self.linear1(points)))
        return query, self.norm3(points + drop(self.linear2(hidden)))


class PointDecoder(nn.Module):
    """What the decoder has for points.

    Args:
        embed_dims: width D.
        num_layers: of the decoder.
        schema: the points.
        **layer: the other arguments of :class:`PointLayer`.
    """

    def __init__(
        self, embed_dims: int, num_layers: int, schema: Schema, **layer
    ) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(schema.total, embed_dims))
        self.register_buffer('class_mask', schema.blocked())
        first = PointLayer(embed_dims, schema, **layer)
        # Copies, as the layers of the decoder are.
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(num_layers))
        spread_evenly(self)
        for each in self.layers:
            each.cross_attn.reset_parameters()


class PointStream(TokenStream):
    """The points of a batch on their way through the decoder.

    Args:
        decoder: the layers.
        initialiser: makes the points of the queries.
        levels: L maps (B, D, h, w) that the points read.

    Attributes:
        states: (B, N, Kt, D) after each layer.
    """

    def __init__(
        self, decoder: PointDecoder, initialiser: PointInitialiser, levels: list[Tensor]
    ) -> None:
        self.decoder = decoder
        self.initialiser = initialiser
        self.tokens = Memory.flatten(levels).tokens
        self.states: list[Tensor] = []

    def start(self, query: Tensor, query_pos: Tensor, **memory_inputs) -> None:
        """Place the points; see :class:`TokenStream`."""
        references = memory_inputs['reference_points']
        self.query_pos = query_pos
        points = self.initialiser(query[:1])
        self.points = points.expand(query.shape[0], -1, -1, -1)
        self.inputs = dict(
            memory=memory_inputs['memory']._replace(tokens=self.tokens),
            reference_points=references.repeat_interleave(points.shape[2], dim=1),
        )

    def after_layer(self, query: Tensor) -> Tensor:
        """Run the layer of the points that follows that of the queries."""
        layer = self.decoder.layers[len(self.states)]
        query, self.points = layer(
            query, self.points, self.decoder.pos_embed, self.query_pos, **self.inputs
        )
        self.states.append(self.points)
        return query
