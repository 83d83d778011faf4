"""Multi-scale deformable attention in plain PyTorch."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import float32_island


@float32_island()
def sample_and_sum(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    """Sample the value maps bilinearly and sum up the weighted samples.

    Runs in float32 whatever the precision of the network: locations in bfloat16
    put their gradients far off, and bfloat16 sampling is slower than float32 on
    a CPU.

    Args:
        value: (B, S, H, D/H).
        spatial_shapes: (h, w) of each of the L levels.
        locations: (B, N, H, L, P, 2) x, y in [0, 1] of the padded input.
        weights: (B, N, H, L, P), summing to one over levels and points.

    Returns:
        (B, N, D), float32.
    """
    batch, queries, heads, _, points, _ = locations.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    values = value.permute(0, 2, 3, 1).flatten(0, 1)
    sampled = []
    start = 0
    for level, (height, width) in enumerate(spatial_shapes):
        stop = start + height * width
        level_map = values[..., start:stop].unflatten(-1, (height, width))
        sampled.append(
            F.grid_sample(level_map, grids[:, :, level], align_corners=False)
        )
        start = stop
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    summed = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return summed.view(batch, -1, queries).transpose(1, 2)


class MultiScaleDeformableAttention(nn.Module):
    """Each query reads a few points around its reference box in every level.

    Args:
        embed_dims: width D.
        num_heads: H.
        num_levels: L.
        num_points: P, points of each head in each level.
    """

    def __init__(
        self, *, embed_dims: int, num_heads: int, num_levels: int, num_points: int
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f'embed_dims={embed_dims} does not divide by '
                f'cross_attn_heads={num_heads}'
            )
        self.num_heads = num_heads
        self.num_levels = num_levels
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * samples)
        self.attention_weights = nn.Linear(embed_dims, samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Each head looks in a direction of its own, each point one step further."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions /= directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1)
        offsets = directions[:, None, None] * steps[:, None]
        offsets = offsets.expand(-1, self.num_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Tensor,
        *,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Sequence[tuple[int, int]],
        reference_points: Tensor,
    ) -> Tensor:
        """Read the memory.

        Args:
            query: (B, N, D), position added.
            memory: (B, S, D).
            memory_mask: (B, S), True where padded, or None.
            spatial_shapes: (h, w) of each level.
            reference_points: (B, N, L, 4) cxcywh relative to the padded input.

        Returns:
            (B, N, D).
        """
        batch, queries, _ = query.shape
        value = self.value_proj(memory)
        if memory_mask is not None:
            value = value.masked_fill(memory_mask[..., None], 0)
        value = value.unflatten(-1, (self.num_heads, -1))
        shape = (batch, queries, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).view(*shape, 2).float()
        weights = self.attention_weights(query).view(*shape[:3], -1).float()
        weights = weights.softmax(-1).view(shape)
        references = reference_points[:, :, None, :, None]
        # The size is that of the whole box: half of it reaches its border.
        scale = references[..., 2:] * (0.5 / self.num_points)
        locations = references[..., :2] + offsets * scale
        return self.output_proj(
            sample_and_sum(value, spatial_shapes, locations, weights)
        )
