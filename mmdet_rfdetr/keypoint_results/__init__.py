"""What comes of a model with keypoints: numbers and pictures."""

from .metric import RFDETRCocoKeypointMetric
from .pictures import RFDETRKeypointVisualizer

__all__ = ['RFDETRCocoKeypointMetric', 'RFDETRKeypointVisualizer']
