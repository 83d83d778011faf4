"""Detecting from a checkpoint as from an exported file, in tiles, and mirrored.

The packages ``rfdetr_runtime`` and ``rfdetr_predict``, which know neither PyTorch nor
MMDetection, hold all that both kinds of models share. MMDetection's own inference
functions read images as training reads them.
"""

from .. import compat
from .checkpoint import CheckpointModel, load_detector, to_data_sample
from .exported_file import RFDETRExportedFile
from .inferring import detect_as_trained, infer_as_trained
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

compat.ON_IMPORT.append(detect_as_trained)
compat.WITH_A_MODEL.append(infer_as_trained)
