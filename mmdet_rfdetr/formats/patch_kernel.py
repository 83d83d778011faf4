"""Patch kernels for images of other channels, and of another patch size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checkpoints.fit import VIT_FITS
from ..errors import CheckpointError
from ..ops.resampling import resample_patch_kernel


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
