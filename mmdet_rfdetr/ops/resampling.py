"""Resizing of the position table of the ViT.

For checkpoints of another size, and where the network runs at one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_position_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize the patch part of a learned position table.

    Bicubic with antialiasing in float32, to an explicit size, as the official
    package does at loading and at run time. The class entry is kept.

    Args:
        table: (1, 1 + P*P, C), class entry first, then a square grid in rows.
        size: (height, width) of the new grid in patches.

    Returns:
        (1, 1 + height*width, C) in the dtype of ``table``; ``table`` itself if
        its grid has that size already.
    """
    # Sizes are tensors while torch.jit traces, for example for mmengine's get_flops.
    side = math.isqrt(int(table.shape[1]) - 1)
    if tuple(size) == (side, side):
        return table
    return resize_grid(table, side, tuple(size))


def resize_grid(table: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Resize a position table of ``side`` patches a side; see above."""
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=size, mode='bicubic', antialias=True).to(
        table.dtype
    )
    return torch.cat((table[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
