"""Losses, one in each file.

Every classification loss is called as ``loss(cls_scores, matches, labels, ious)``
on the stacked outputs of all stages and returns one number for each stage, so
that any of them can stand in ``bbox_head.loss_cls``.
"""

from .giou import RFDETRGIoULoss
from .iou_aware_bce import RFDETRIoUAwareBCELoss
from .mask_points import RFDETRPointMaskLoss
from .position_supervised import RFDETRPositionSupervisedLoss
from .sigmoid_focal import RFDETRSigmoidFocalLoss
from .varifocal import RFDETRVarifocalLoss

__all__ = [
    'RFDETRGIoULoss',
    'RFDETRIoUAwareBCELoss',
    'RFDETRPointMaskLoss',
    'RFDETRPositionSupervisedLoss',
    'RFDETRSigmoidFocalLoss',
    'RFDETRVarifocalLoss',
]
