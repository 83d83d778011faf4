"""Keypoints: their head, losses and results."""

from . import official_names, point_rows  # noqa: F401
from .keypoint_head import RFDETRKeypointHead
from .unit_precision import RFDETRUnitPrecisionHook

__all__ = ['RFDETRKeypointHead', 'RFDETRUnitPrecisionHook']
