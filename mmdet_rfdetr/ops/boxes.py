"""Box formulas shared by the models, the losses and the matching.

Boxes are ``cxcywh`` normalised to the image unless a name says ``xyxy``.
"""

import torch
from torch import Tensor

from .constants import constant

EPS = 1e-7
"""Smallest area that an overlap is divided by."""


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn centre and size into corners; negative sizes count as zero.

    Args:
        boxes: (..., 4) cx, cy, w, h.

    Returns:
        (..., 4) x1, y1, x2, y2, in the same units.
    """
    centre, side = boxes[..., None, :2], boxes[..., None, 2:].clamp(min=0)
    halves = _halves(boxes.device, boxes.dtype)
    return torch.addcmul(centre, side, halves).flatten(-2)


@constant
def _halves(device: torch.device, dtype: torch.dtype) -> Tensor:
    """From the centre to both corners, as parts of the size: (2, 1)."""
    return torch.tensor([[-0.5], [0.5]], device=device, dtype=dtype)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn corners into centre and size.

    Args:
        boxes: (..., 4) x1, y1, x2, y2.

    Returns:
        (..., 4) cx, cy, w, h, in the same units.
    """
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) * 0.5, bottom_right - top_left), dim=-1)


def apply_deltas(deltas: Tensor, references: Tensor) -> Tensor:
    """Move and scale reference boxes, as RF-DETR does everywhere.

    The centre moves by a multiple of the reference size and the size is scaled
    exponentially. There is no sigmoid and no clamping, so the result may leave
    the image. (The official name of this is ``bbox_reparam``.)

    Args:
        deltas: (..., 4).
        references: (..., 4) cxcywh.

    Returns:
        (..., 4) cxcywh, float32.
    """
    deltas, references = deltas.float(), references.float()
    centre = deltas[..., :2] * references[..., 2:] + references[..., :2]
    size = deltas[..., 2:].exp() * references[..., 2:]
    return torch.cat((centre, size), dim=-1)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of each box with the one at the same place.

    Args:
        boxes: (..., 4) xyxy.
        others: (..., 4) xyxy.

    Returns:
        (...,) in [0, 1].
    """
    overlap = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(
        boxes[..., :2], others[..., :2]
    )
    intersection = overlap.clamp(min=0).prod(-1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    other_area = (others[..., 2:] - others[..., :2]).prod(-1)
    return intersection / (area + other_area - intersection).clamp(min=EPS)
