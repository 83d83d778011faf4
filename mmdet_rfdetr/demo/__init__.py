"""Built-in data: pictures of shapes that the package draws itself."""

from .dataset import RFDETRDemoDataset

__all__ = ['RFDETRDemoDataset']
