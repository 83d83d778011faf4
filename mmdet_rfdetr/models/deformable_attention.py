"""Multi-scale deformable attention in plain PyTorch."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import float32_island
from .memory import Memory


@float32_island()
def sample_and_sum(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    grids: Tensor,
    weights: Tensor,
) -> Tensor:
    """Sample the value maps bilinearly and sum up the weighted samples.

    Runs in float32 whatever the precision of the network: locations in bfloat16
    put their gradients far off, and bfloat16 sampling is slower than float32 on
    a CPU. Queries are the last axis, so that every operation on the samples runs
    over neighbouring numbers.

    Args:
        value: (B, H, D/H, S).
        spatial_shapes: (h, w) of each of the L levels.
        grids: (B, H, L, P, N, 2) x, y in [-1, 1] of the padded input.
        weights: (B, H, L*P, N), summing to one over levels and points.

    Returns:
        (B, N, D), float32.
    """
    batch, _, levels, _, queries, _ = grids.shape
    maps = value.flatten(0, 1).split([h * w for h, w in spatial_shapes], dim=-1)
    sampled = [
        F.grid_sample(level_map.unflatten(-1, shape), grid, align_corners=False)
        for level_map, shape, grid in zip(
            maps, spatial_shapes, grids.flatten(0, 1).unbind(1), strict=True
        )
    ]
    sampled = sampled[0] if levels == 1 else torch.cat(sampled, dim=2)
    summed = (sampled * weights.flatten(0, 1)[:, None]).sum(2)
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
        self, query: Tensor, *, memory: Memory, reference_points: Tensor
    ) -> Tensor:
        """Read the memory, but for its padding.

        Args:
            query: (B, N, D), position added.
            memory: S tokens of L levels.
            reference_points: (B, N, L, 4) cxcywh relative to the padded input.

        Returns:
            (B, N, D).
        """
        batch, queries, _ = query.shape
        value = self.value_proj(memory.tokens)
        if memory.padding is not None:
            value = value.masked_fill(memory.padding[..., None], 0)
        shape = (batch, queries, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).float().view(*shape, 2)
        weights = self.attention_weights(query).float().view(*shape[:3], -1)
        references = reference_points.transpose(1, 2)[:, None, :, None]
        # In grids of [-1, 1] the whole box is two halves long, and a size is that
        # of the whole box: half of it reaches its border.
        grids = torch.addcmul(
            2 * references[..., :2] - 1,
            offsets.permute(0, 2, 3, 4, 1, 5),
            references[..., 2:] / self.num_points,
        )
        summed = sample_and_sum(
            value.transpose(1, 2).unflatten(1, (self.num_heads, -1)),
            memory.shapes,
            grids,
            weights.permute(0, 2, 3, 1).softmax(2),
        )
        return self.output_proj(summed)
