"""Metrics."""

from .coco_metric import RFDETRCocoMetric

__all__ = ['RFDETRCocoMetric']
