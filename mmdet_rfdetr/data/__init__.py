"""Pictures and annotations on their way to the model."""

from .coco_dataset import RFDETRCocoDataset
from .loading import RFDETRLoadImage
from .multi_scale import RFDETRBatchMultiScale
from .transforms import RFDETRRandomSquareCrop, RFDETRResize

__all__ = [
    'RFDETRBatchMultiScale',
    'RFDETRCocoDataset',
    'RFDETRLoadImage',
    'RFDETRRandomSquareCrop',
    'RFDETRResize',
]
