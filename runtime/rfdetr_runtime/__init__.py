"""Runs exported RF-DETR files; imports neither PyTorch nor MMDetection.

::

    model = open_model('rfdetr_nano.onnx')
    outputs = model(prepare([image], model.metadata))
    (found,) = find_objects(outputs, model.metadata, [image.shape[:2]])
"""

from .backends import Backend, open_model
from .errors import ModelFileError
from .metadata import Metadata
from .postprocess import Found, find_objects
from .preprocess import prepare
from .version import __version__

__all__ = [
    'Backend',
    'Found',
    'Metadata',
    'ModelFileError',
    '__version__',
    'find_objects',
    'open_model',
    'prepare',
]
