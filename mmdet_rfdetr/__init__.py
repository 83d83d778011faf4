"""RF-DETR for MMDetection 3.x."""

from mmdet_rfdetr import compat

compat.apply()

__version__ = '0.1.0'
