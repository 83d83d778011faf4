"""Pictures and annotations on their way to the model."""

from .demo import RFDETRDemoDataset
from .multi_scale import RFDETRBatchMultiScale
from .transforms import RFDETRRandomSquareCrop, RFDETRResize

__all__ = [
    'RFDETRBatchMultiScale',
    'RFDETRDemoDataset',
    'RFDETRRandomSquareCrop',
    'RFDETRResize',
]
