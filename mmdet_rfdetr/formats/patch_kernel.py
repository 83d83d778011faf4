"""Patch kernels for images of other channels, and of another patch size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.fit import VIT_FITS
from ..errors import CheckpointError


def fit_patch_kernel(kernel: Tensor, shape: Sequence[int]) -> tuple[Tensor, str]:
    """Fit a patch kernel to another patch size and number of image channels.

    From RGB, one channel takes the mean over the three. More take R, G, B, R, ...
    scaled by 3 over their number, which keeps the size of the sum.

    Args:
        kernel: (C, channels, p, p) of the file.
        shape: (C, channels, p, p) of the model.

    Returns:
        The kernel of the model, and a few words on it.

    Raises:
        CheckpointError: the channels differ and those of the file are not RGB.
    """
    before, after = kernel.shape[1], shape[1]
    if before not in (3, after):
        raise CheckpointError(
            f'The checkpoint takes images of {before} channels, the model of '
            f'{after}: set model.backbone.in_channels={before}.'
        )
    if before != after and after == 1:
        kernel = kernel.mean(dim=1, keepdim=True)
    elif before != after:
        kernel = kernel[:, torch.arange(after) % 3] * (3 / after)
    return resample_patch_kernel(kernel, shape[-1]), 'patch kernel resampled'


VIT_FITS['patch_embed.weight'] = fit_patch_kernel


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
        (C, channels, size, size) in the dtype of ``kernel``; ``kernel`` itself if it
        has that size already.
    """
    side = kernel.shape[-1]
    if size == side:
        return kernel
    pixels = torch.eye(side * side, dtype=torch.float64, device=kernel.device)
    resized = F.interpolate(
        pixels.view(-1, 1, side, side), size=(size, size), mode='bilinear'
    )
    # Row i of ``resized`` is column i of B, so the matrix at hand is B^T.
    inverse = torch.linalg.pinv(resized.flatten(1))
    flat = kernel.flatten(2).double()
    return (flat @ inverse.T).unflatten(2, (size, size)).to(kernel.dtype)
