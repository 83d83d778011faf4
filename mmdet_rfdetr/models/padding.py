"""What of a batch is no image."""

import torch
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor

from ..ops.transfer import upload


def has_padding(batch_data_samples: SampleList) -> bool:
    """Whether an image is smaller than the batch; who pads states the batch's size."""
    size = batch_data_samples[0].get('batch_input_shape')
    return size is not None and any(
        tuple(sample.img_shape[:2]) != tuple(size) for sample in batch_data_samples
    )


def padding_mask(
    batch_data_samples: OptSampleList, device: torch.device
) -> Tensor | None:
    """1.0 where the batch is padding, (B, H, W) float32; None without padding."""
    if batch_data_samples is None or not has_padding(batch_data_samples):
        return None
    height, width = batch_data_samples[0].batch_input_shape
    sizes = upload([sample.img_shape[:2] for sample in batch_data_samples], device)
    rows = torch.arange(height, device=device) >= sizes[:, :1]
    columns = torch.arange(width, device=device) >= sizes[:, 1:]
    return (rows[:, :, None] | columns[:, None, :]).float()
