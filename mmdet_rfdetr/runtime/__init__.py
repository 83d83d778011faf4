"""Detecting from a checkpoint as from an exported file, in tiles, and mirrored.

The packages ``rfdetr_runtime`` and ``rfdetr_predict``, which know neither PyTorch nor
MMDetection, hold all that both kinds of models share.
"""

from .checkpoint import CheckpointModel, load_detector, to_data_sample
from .exported_file import RFDETRExportedFile
from .mirror import RFDETRMirrorTTA
from .tiles import RFDETRTiledModel, RFDETRTiles

__all__ = [
    'CheckpointModel',
    'RFDETRExportedFile',
    'RFDETRMirrorTTA',
    'RFDETRTiledModel',
    'RFDETRTiles',
    'load_detector',
    'to_data_sample',
]
