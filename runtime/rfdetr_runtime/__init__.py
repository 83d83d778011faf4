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

from .backends import Backend, open_model
from .detections import Detections
from .detector import Detector, ExportedModel
from .errors import ModelFileError, SourceError
from .metadata import Metadata
from .pictures import Picture
from .postprocess import Found, find_objects
from .preprocess import prepare
from .version import __version__

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
