"""What is wrong with a data set, and with what a run makes of it."""

from .bad_data_hook import RFDETRBadDataHook
from .coco_dataset import CheckedCocoDataset
from .coco_metric import CheckedCocoMetric

__all__ = ['CheckedCocoDataset', 'CheckedCocoMetric', 'RFDETRBadDataHook']
