"""Keypoints: their data, head, losses and results."""

from . import (  # noqa: F401
    keypoint_data,
    keypoint_head,
    official_names,
    point_rows,
    unit_precision,
)
