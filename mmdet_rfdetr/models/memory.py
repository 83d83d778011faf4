"""The tokens that the decoder attends to, and what of them is padding."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor

from ..ops.transfer import upload


class Memory(NamedTuple):
    """Levels of the neck, flattened and joined.

    Attributes:
        tokens: (B, S, D).
        shapes: (h, w) of each of the L levels.
        padding: (B, S), True where a token is padding; None if none is.
        valid_sizes: (B, L, 2), rows and columns of each level that are image; None
            without padding.
        valid_ratios: (B, L, 2), part of the width and of the height of each level that
            is image; None without padding.
    """

    tokens: Tensor
    shapes: tuple[tuple[int, int], ...]
    padding: Tensor | None = None
    valid_sizes: Tensor | None = None
    valid_ratios: Tensor | None = None

    @classmethod
    def flatten(
        cls, levels: Sequence[Tensor], batch_data_samples: OptSampleList = None
    ) -> 'Memory':
        """Join levels (B, D, h_l, w_l).

        Args:
            levels: of the neck.
            batch_data_samples: samples whose ``img_shape`` and ``batch_input_shape``
                tell the padding; without, there is none.
        """
        tokens = [x.flatten(2).transpose(1, 2) for x in levels]
        memory = cls(
            tokens=tokens[0] if len(tokens) == 1 else torch.cat(tokens, dim=1),
            shapes=tuple(tuple(x.shape[-2:]) for x in levels),
        )
        mask = _padding_mask(batch_data_samples, memory.tokens.device)
        if mask is None:
            return memory
        masks = [
            F.interpolate(mask[:, None], size=shape)[:, 0] > 0.5
            for shape in memory.shapes
        ]
        sizes = [
            torch.stack(((~m[:, :, 0]).sum(1), (~m[:, 0]).sum(1)), dim=-1)
            for m in masks
        ]
        sizes = torch.stack(sizes, dim=1)
        return memory._replace(
            padding=torch.cat([m.flatten(1) for m in masks], dim=1),
            valid_sizes=sizes,
            valid_ratios=(sizes / upload(memory.shapes, sizes.device)).flip(-1),
        )

    def relative_to_levels(self, boxes: Tensor) -> Tensor:
        """Boxes (B, N, 4) of the images, relative to each padded level (B, N, L, 4)."""
        boxes = boxes[:, :, None]
        if self.valid_ratios is None:
            return boxes.expand(-1, -1, len(self.shapes), -1)
        return boxes * self.valid_ratios.repeat(1, 1, 2)[:, None]


def has_padding(batch_data_samples: SampleList) -> bool:
    """Whether an image is smaller than the batch; who pads states the batch's size."""
    size = batch_data_samples[0].get('batch_input_shape')
    return size is not None and any(
        tuple(sample.img_shape[:2]) != tuple(size) for sample in batch_data_samples
    )


def _padding_mask(
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
