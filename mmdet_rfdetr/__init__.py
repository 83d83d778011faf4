"""RF-DETR for MMDetection 3.x: importing it registers every part.

A project's config inherits from a shipped one with::

    _base_ = __import__('mmdet_rfdetr').config('rfdetr_coco.py')
"""

from mmdet_rfdetr import compat

compat.apply()

# Importing a part registers it; only now, because they all import MMDetection.
from mmdet_rfdetr import (  # noqa: E402, F401
    analysis,
    data,
    evaluation,
    losses,
    matching,
    models,
    precision,
    training,
)
from mmdet_rfdetr.image_size import set_image_size  # noqa: E402
from mmdet_rfdetr.shipped import config  # noqa: E402

__all__ = ['config', 'set_image_size']
__version__ = '0.1.0'
