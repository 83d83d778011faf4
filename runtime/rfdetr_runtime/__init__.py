"""Runs exported RF-DETR files; imports neither PyTorch nor MMDetection.

::

    from rfdetr_runtime import Detector

    detect = Detector('rfdetr_nano.onnx', threshold=0.5)
    found = detect('street.jpg')  # boxes, scores, labels, masks, names

What a :class:`Detector` does in one go::

    model = open_model('rfdetr_nano.onnx')
    outputs = model(prepare([image], model.metadata))
    (found,) = find_objects(outputs, model.metadata, [image.shape[:2]])
"""

import importlib

from .errors import ModelFileError, SourceError
from .version import __version__

_PARTS = {
    'Backend': 'backends',
    'Detections': 'detections',
    'Detector': 'detector',
    'ExportedModel': 'detector',
    'Found': 'postprocess',
    'Metadata': 'metadata',
    'Picture': 'pictures',
    'find_objects': 'postprocess',
    'open_model': 'backends',
    'prepare': 'preprocess',
}

__all__ = [
    'Backend',
    'Detections',
    'Detector',
    'ExportedModel',
    'Found',
    'Metadata',
    'ModelFileError',
    'Picture',
    'SourceError',
    '__version__',
    'find_objects',
    'open_model',
    'prepare',
]


def __getattr__(name: str):
    # What needs NumPy and OpenCV waits until it is used: a command line parses first.
    if name not in _PARTS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'.{_PARTS[name]}', __name__), name)
