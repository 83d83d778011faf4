"""Small tensors on their way between the host and a device.

An ordinary copy to a GPU waits until the GPU has done everything that was asked of it
before. Pinned memory takes no waiting, so that the host can run ahead.
"""

import numpy as np
import torch
from torch import Tensor


def upload(
    values: np.ndarray | list | tuple,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Make a tensor of numbers of the host on a device, without waiting for it.

    Args:
        values: an array, or nested lists of numbers.
        device: where the tensor is needed.
        dtype: of the tensor, that of the values if left out.
    """
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensor: Tensor) -> Tensor:
    """Copy a tensor to the host, and wait until it is there."""
    if not tensor.is_cuda:
        return tensor.cpu()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor)
