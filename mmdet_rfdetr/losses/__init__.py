"""Losses.

Every classification loss is called as ``loss(cls_scores, matches, labels, ious)``
on the stacked outputs of all stages and returns one number for each stage, so
that any of them can stand in ``bbox_head.loss_cls``.
"""

from .classification import (
    RFDETRIoUAwareBCELoss,
    RFDETRPositionSupervisedLoss,
    RFDETRSigmoidFocalLoss,
    RFDETRVarifocalLoss,
)
from .giou import RFDETRGIoULoss

__all__ = [
    'RFDETRGIoULoss',
    'RFDETRIoUAwareBCELoss',
    'RFDETRPositionSupervisedLoss',
    'RFDETRSigmoidFocalLoss',
    'RFDETRVarifocalLoss',
]
