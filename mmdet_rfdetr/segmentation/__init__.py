"""Instance masks: their head, loss, results and annotations."""

from . import mask_precision, resizing  # noqa: F401
from .annotations import RFDETRLoadAnnotations
from .mask_head import RFDETRMaskHead
from .point_loss import RFDETRPointMaskLoss

__all__ = ['RFDETRLoadAnnotations', 'RFDETRMaskHead', 'RFDETRPointMaskLoss']
