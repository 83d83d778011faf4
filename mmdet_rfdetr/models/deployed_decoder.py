"""Decoder of a deployed model: the same numbers in two thirds of the kernels.

The bias in front of each residual sum is added by the layer norm before it, so that
the product can be added up in place. Layers that read the sum take the bias off
again, by a bias of their own.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..precision import products
from ..speed.packed_linear import PackedLinear, PackedMLP
from .decoder import DecoderLayer, RFDETRDecoder, references_of_levels
from .deformable_attention import MultiScaleDeformableAttention, sample_and_sum
from .relu_mlp import ReLUMLP


def _linear(weight: Tensor, bias: Tensor | None, carried: Tensor | None) -> nn.Linear:
    """A layer of given weights whose input carries a constant that is not meant."""
    linear = products.Linear(*weight.T.shape, bias=bias is not None, device='meta')
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias - weight @ carried, requires_grad=False)
    return linear


def _norm(norm: nn.LayerNorm, carry: Tensor) -> nn.LayerNorm:
    """A layer norm that adds a constant to its output."""
    norm.bias = nn.Parameter(norm.bias + carry, requires_grad=False)
    return norm


def _add_product(x: Tensor, linear: nn.Linear, y: Tensor) -> Tensor:
    """Add ``linear(y)`` to ``x`` (B, N, D) in place; the layer has no bias."""
    if x.dtype == y.dtype == linear.weight.dtype:
        x.flatten(0, 1).addmm_(y.flatten(0, 1), linear.weight.T)
        return x
    return x.add_(linear(y))


class DeployedSampling(nn.Module):
    """:class:`MultiScaleDeformableAttention` from offsets to weighted samples.

    Args:
        attention: the attention.
        carried: constant in the query that is not meant.
    """

    def __init__(
        self, attention: MultiScaleDeformableAttention, carried: Tensor
    ) -> None:
        super().__init__()
        self.shape = attention.num_heads, attention.num_levels, attention.num_points
        offsets, weights = attention.sampling_offsets, attention.attention_weights
        # In grids of [-1, 1] a whole box is two halves long.
        points = attention.num_points
        self.offsets = _linear(offsets.weight / points, offsets.bias / points, carried)
        self.weights = _linear(weights.weight, weights.bias, carried)

    def forward(
        self,
        query: Tensor,
        *,
        value: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        centres: Tensor,
        sizes: Tensor,
    ) -> Tensor:
        """Sample and sum up.

        Args:
            query: (B, N, D), position added.
            value: (B, H, D/H, S), float32.
            spatial_shapes: (h, w) of each level.
            centres: (B, 1, L, 1, N, 2) of the references in [-1, 1].
            sizes: (B, 1, L, 1, N, 2) of the references in [0, 1].

        Returns:
            (B, N, D) float32.
        """
        batch, queries, _ = query.shape
        offsets = self.offsets(query).float().view(batch, queries, *self.shape, 2)
        grids = torch.addcmul(centres, offsets.permute(0, 2, 3, 4, 1, 5), sizes)
        weights = self.weights(query).float().view(batch, queries, self.shape[0], -1)
        weights = weights.permute(0, 2, 3, 1).softmax(2)
        return sample_and_sum(value, spatial_shapes, grids, weights)


class DeployedDecoderLayer(nn.Module):
    """:class:`DecoderLayer` of constant weights; it changes its input in place.

    Args:
        layer: the layer.
        carry: constant (D,) that its output shall carry for the next one.

    Attributes:
        carried: constant (D,) that its input has to carry.
        carry: see above.
    """

    def __init__(self, layer: DecoderLayer, carry: Tensor) -> None:
        super().__init__()
        attention, cross, last = layer.self_attn, layer.cross_attn, layer.linear2
        width = len(attention.out_proj.bias)
        weights = attention.in_proj_weight.split((2 * width, width))
        biases = attention.in_proj_bias.split((2 * width, width))
        self.num_heads = attention.num_heads
        self.register_buffer('carried', attention.out_proj.bias.detach().clone())
        self.query_key, self.value = (
            _linear(*part, self.carried) for part in zip(weights, biases, strict=True)
        )
        self.out_proj = _linear(attention.out_proj.weight, None, None)
        self.norm1 = _norm(layer.norm1, cross.output_proj.bias)
        self.sampling = DeployedSampling(cross, cross.output_proj.bias)
        self.sampled_proj = _linear(cross.output_proj.weight, None, None)
        self.norm2 = _norm(layer.norm2, last.bias)
        first = _linear(layer.linear1.weight, layer.linear1.bias, last.bias)
        self.linear1 = PackedLinear(first.weight, first.bias, 'relu')
        self.linear2 = _linear(last.weight, None, None)
        self.register_buffer('carry', carry.detach().clone())
        self.norm3 = _norm(layer.norm3, carry)

    def forward(self, query: Tensor, query_pos: Tensor, **sampled) -> Tensor:
        """Refine the queries (B, N, D); the rest is for :class:`DeployedSampling`."""
        attended = self._attend(query, query + query_pos)
        query = self.norm1(_add_product(query, self.out_proj, attended))
        summed = self.sampling(query + query_pos, **sampled)
        query = self.norm2(_add_product(query, self.sampled_proj, summed))
        return self.norm3(_add_product(query, self.linear2, self.linear1(query)))

    def _attend(self, query: Tensor, positioned: Tensor) -> Tensor:
        heads = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (
                *self.query_key(positioned).chunk(2, dim=-1),
                self.value(query),
            )
        )
        return products.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


class DeployedDecoder(nn.Module):
    """:class:`RFDETRDecoder` of constant weights, for a single group.

    The values of all layers are one product, and the cosines of box features are
    sines a quarter further on.
    """

    def __init__(self, decoder: RFDETRDecoder) -> None:
        super().__init__()
        layers = decoder.layers
        carries = [layer.self_attn.out_proj.bias for layer in layers[1:]]
        carries.append(torch.zeros_like(layers[0].self_attn.out_proj.bias))
        values = [layer.cross_attn.value_proj for layer in layers]
        self.values = _linear(
            torch.cat([value.weight for value in values]),
            torch.cat([value.bias for value in values]),
            torch.zeros_like(carries[0]),
        )
        self.layers = nn.ModuleList(
            DeployedDecoderLayer(layer, carry.detach().clone())
            for layer, carry in zip(layers, carries, strict=True)
        )
        self.norm = decoder.norm
        self._make_positions(decoder.ref_point_head, decoder.embed_dims // 2)

    def _make_positions(self, head: ReLUMLP, count: int) -> None:
        """Frequencies and phases of ``count`` features a number, and their order."""
        first, last = head
        index = torch.arange(count, device=first.weight.device)
        self.register_buffer(
            'frequencies', 2 * math.pi / 10000 ** (index // 2 * 2 / count)
        )
        self.register_buffer('phases', index % 2 * (math.pi / 2))
        # The features are made for cx, cy, w, h, the weights for cy, cx, w, h.
        columns = first.weight.unflatten(1, (4, count))[:, [1, 0, 2, 3]].flatten(1)
        self.ref_point_head = PackedMLP(
            [(columns, first.bias), (last.weight, last.bias)]
        )
        self.register_buffer('corner', torch.tensor(-1.0, device=columns.device))

    def forward(
        self,
        query: Tensor,
        *,
        references: Tensor,
        valid_ratios: Tensor | None,
        num_groups: int,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Sequence[tuple[int, int]],
        last_only: bool = False,
    ) -> Tensor:
        """Run all layers; arguments and result are those of the plain decoder."""
        references = references_of_levels(references, valid_ratios, len(spatial_shapes))
        numbers = references[:, :, 0, :, None]
        angles = torch.addcmul(self.phases, numbers, self.frequencies)
        query_pos = self.ref_point_head(angles.sin_().flatten(2))
        boxes = references.transpose(1, 2)[:, None, :, None]
        sampled = dict(
            spatial_shapes=spatial_shapes,
            centres=torch.add(self.corner, boxes[..., :2], alpha=2),
            sizes=boxes[..., 2:],
        )
        values = self._values(memory, memory_mask)
        query = query + self.layers[0].carried
        outputs = []
        for layer, value in zip(self.layers, values, strict=True):
            query = layer(query, query_pos, value=value, **sampled)
            if not last_only:
                outputs.append(self.norm(query - layer.carry))
        return self.norm(query)[None] if last_only else torch.stack(outputs)

    def _values(self, memory: Tensor, memory_mask: Tensor | None) -> Sequence[Tensor]:
        """Values (B, H, D/H, S) of each layer, float32."""
        values = self.values(memory).float()
        if memory_mask is not None:
            values = values.masked_fill(memory_mask[..., None], 0)
        heads = self.layers[0].sampling.shape[0]
        layers = values.transpose(1, 2).unflatten(1, (len(self.layers), heads, -1))
        return layers.unbind(1)
