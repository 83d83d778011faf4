"""Resizing of the two size-dependent tensors of the ViT.

One function for each, used when a checkpoint is loaded and when the network
runs at a size that differs from its table.
"""

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
    side = round((table.shape[1] - 1) ** 0.5)
    if tuple(size) == (side, side):
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid.float(), size=tuple(size), mode='bicubic', antialias=True
    ).to(table.dtype)
    return torch.cat((table[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
