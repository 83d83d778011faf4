"""Generalized IoU loss that the host does not wait for."""

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..ops.boxes import EPS
from ..precision import float32_island


@MODELS.register_module()
class RFDETRGIoULoss(nn.Module):
    """One minus the GIoU of pairs of boxes (Rezatofighi et al., 2019).

    The numbers and the call are those of mmdet's ``GIoULoss`` with ``eps=1e-7``, which
    works just as well. That one copies its ``eps`` from the host in every call: a GPU's
    queue has to run empty for it, and it cannot be recorded in a CUDA graph.

    Args:
        loss_weight: weight of the loss.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @float32_island()
    def forward(
        self, pred: Tensor, target: Tensor, reduction_override: str = 'none'
    ) -> Tensor:
        """Compute the loss of each pair.

        Args:
            pred: (n, 4) xyxy.
            target: (n, 4) xyxy.
            reduction_override: ``'none'``, or ``'sum'`` or ``'mean'`` of the pairs.

        Returns:
            (n,) weighted, or their sum or mean.
        """
        intersection = _area(
            torch.maximum(pred[:, :2], target[:, :2]),
            torch.minimum(pred[:, 2:], target[:, 2:]),
        )
        hull = _area(
            torch.minimum(pred[:, :2], target[:, :2]),
            torch.maximum(pred[:, 2:], target[:, 2:]),
        ).clamp(min=EPS)
        areas = [
            (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            for boxes in (pred, target)
        ]
        union = (areas[0] + areas[1] - intersection).clamp(min=EPS)
        loss = 1 - (intersection / union - (hull - union) / hull)
        return self.loss_weight * weight_reduce_loss(loss, reduction=reduction_override)


def _area(top_left: Tensor, bottom_right: Tensor) -> Tensor:
    """Area (n,) between corners (n, 2); zero where they are the wrong way round."""
    width, height = (bottom_right - top_left).clamp(min=0).unbind(1)
    return width * height
