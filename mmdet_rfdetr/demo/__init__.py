"""Built-in data: pictures of shapes and figures that the package draws itself."""

from .dataset import RFDETRDemoDataset, RFDETRDemoFigures

__all__ = [
    'RFDETRDemoDataset',
    'RFDETRDemoFigures',
]
