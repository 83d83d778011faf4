"""What computes average precision.

An engine is a callable ``(ground_truth, detections, iou_type)`` that returns an
evaluator with the interface of pycocotools' ``COCOeval``: ``params``, ``evaluate()``,
``accumulate()`` and ``eval``. Detections are what pycocotools' ``loadRes`` takes: see
:mod:`~mmdet_rfdetr.evaluation.predictions`.
"""

import contextlib
import functools
import io
from collections.abc import Callable

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmengine.logging import print_log

from ..errors import MissingPackageError, SettingError


def pycocotools_engine(
    ground_truth: COCO, detections: np.ndarray | list[dict], iou_type: str
) -> COCOeval:
    """The reference."""
    if iou_type == 'bbox':
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the shape
            detections = ground_truth.loadNumpyAnnotations(detections)
    return COCOeval(ground_truth, ground_truth.loadRes(detections), iou_type)


ENGINES: dict[str, Callable[[], Callable]] = {'pycocotools': lambda: pycocotools_engine}
"""What loads each engine, and raises ``MissingPackageError`` if it is not installed.

One that is added is preferred to those before it, and its numbers are the same.
"""


def choose_engine(name: str) -> Callable:
    """Find an engine.

    Args:
        name: one of ``ENGINES``, or ``'auto'``: the last of them that is installed;
            what one of them lacks is said once in the log.

    Raises:
        SettingError: if there is no such engine.
        MissingPackageError: if an engine is asked for whose package is not installed.
    """
    if name not in ('auto', *ENGINES):
        raise SettingError(f"engine={name!r} must be 'auto' or one of {tuple(ENGINES)}")
    if name != 'auto':
        return ENGINES[name]()
    for load in reversed(ENGINES.values()):
        try:
            return load()
        except MissingPackageError as error:
            _log_once(str(error))
    raise AssertionError('pycocotools is always there')


@functools.cache
def _log_once(message: str) -> None:
    print_log(message, logger='current')
