"""Built-in data: pictures of shapes and figures that the package draws itself."""

from .dataset import RFDETRDemoDataset, RFDETRDemoFigures
from .points import RFDETRDemoPointsDataset, RFDETRDemoPointsMetric

__all__ = [
    'RFDETRDemoDataset',
    'RFDETRDemoFigures',
    'RFDETRDemoPointsDataset',
    'RFDETRDemoPointsMetric',
]
