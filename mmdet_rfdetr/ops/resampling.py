"""Resizing of the position table and the patch kernel of the ViT.

For checkpoints of another size, and where the network runs at one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .constants import constant


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


def resample_patch_kernel(kernel: Tensor, size: int) -> Tensor:
    """Resample a patch kernel so that it gives the same tokens for resized patches.

    The pseudo-inverse resize of FlexiViT (Beyer et al. 2023, section 3.4): bilinear
    resizing of a patch is a matrix B, and the new kernel is the w' that minimises the
    difference between <x, w> and <B x, w'> over patches x of white noise,
    w' = pinv(B^T) w. For a larger kernel the difference is zero.

    Args:
        kernel: (C, channels, p, p).
        size: new side in pixels.

    Returns:
        (C, channels, size, size) in the dtype of ``kernel``, rounded once; ``kernel``
        itself if it has that size already. It has a gradient.
    """
    side = kernel.shape[-1]
    if size == side:
        return kernel
    flat = kernel.flatten(2).double() @ _resampling(side, size, kernel.device)
    return flat.unflatten(2, (size, size)).to(kernel.dtype)


@constant
def _resampling(side: int, size: int, device: torch.device) -> Tensor:
    """The matrix (side**2, size**2) float64 that resamples the rows of a kernel."""
    pixels = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    resized = F.interpolate(pixels, size=(size, size), mode='bilinear')
    # Row i of ``resized`` is column i of B, so the matrix at hand is B^T. Made on the
    # host, so that all devices have the same one.
    return torch.linalg.pinv(resized.flatten(1)).T.to(device)
