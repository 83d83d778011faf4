"""Pictures and annotations on their way to the model."""

from .bad_data_hook import RFDETRBadDataHook
from .coco import RFDETRCocoDataset
from .demo import RFDETRDemoDataset
from .jittered import RFDETRLoadJittered
from .loading import RFDETRLoadImage
from .masks import RFDETRLoadAnnotations
from .multi_scale import RFDETRBatchMultiScale
from .preprocessor import RFDETRDataPreprocessor
from .transforms import RFDETRRandomSquareCrop, RFDETRResize

__all__ = [
    'RFDETRBadDataHook',
    'RFDETRBatchMultiScale',
    'RFDETRCocoDataset',
    'RFDETRDataPreprocessor',
    'RFDETRDemoDataset',
    'RFDETRLoadImage',
    'RFDETRLoadJittered',
    'RFDETRLoadAnnotations',
    'RFDETRRandomSquareCrop',
    'RFDETRResize',
]
