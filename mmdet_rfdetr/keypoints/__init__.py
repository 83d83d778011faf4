"""Keypoints: their data, head, losses and results."""

from . import official_names, point_rows  # noqa: F401
from .keypoint_data import (
    RFDETRCocoKeypointDataset,
    RFDETRLoadKeypoints,
    RFDETRPackKeypoints,
)
from .keypoint_head import RFDETRKeypointHead
from .unit_precision import RFDETRUnitPrecisionHook

__all__ = [
    'RFDETRCocoKeypointDataset',
    'RFDETRKeypointHead',
    'RFDETRLoadKeypoints',
    'RFDETRPackKeypoints',
    'RFDETRUnitPrecisionHook',
]
