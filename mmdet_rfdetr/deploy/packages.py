"""The packages that exporting needs, and one way to run them without their chatter."""

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from rfdetr_runtime import ModelFileError

from ..errors import ExplainedError, MissingPackageError

EXTRAS = dict(
    onnx='onnx',
    onnxscript='onnx',
    onnxruntime='onnx',
    openvino='openvino',
    nncf='int8',
)
"""The extra of this package that brings each of them."""


def need(*names: str) -> ModuleType:
    """Import packages that only some users need.

    Args:
        *names: modules of which the first part is a key of ``EXTRAS``.

    Returns:
        The first of them.

    Raises:
        MissingPackageError: one is not installed; says what to type.
    """
    # OpenVINO and NNCF would report their use over the network, and take a stand-in of
    # their own where this package is not installed.
    sys.modules.setdefault('openvino_telemetry', None)
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            package = name.partition('.')[0]
            raise MissingPackageError(
                f'exporting needs the package {package}, which cannot be imported '
                f"({error}): pip install 'mmdet_rfdetr[{EXTRAS[package]}]'"
            ) from error
    return modules[0]


@contextmanager
def quietly() -> Iterator[None]:
    """Keep back what exporters say about their own insides.

    Errors come through. What a user has to know is found out by running the file.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the runtime package's errors into errors of this one."""
    try:
        yield
    except ModelFileError as error:
        raise ExplainedError(str(error)) from error
