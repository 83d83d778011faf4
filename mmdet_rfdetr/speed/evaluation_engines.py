"""What computes average precision: pycocotools, or a package that is faster.

An engine is a callable ``(ground_truth, detections, iou_type)`` that returns an
evaluator with the interface of pycocotools' ``COCOeval``: ``params``, ``evaluate()``,
``accumulate()``, ``summarize()``, ``eval`` and ``stats``.
"""

import contextlib
import functools
import io
import time
from collections.abc import Callable

from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmengine.logging import print_log

from ..errors import MissingPackageError, SettingError
from ..evaluation.predictions import Detections


def pycocotools_engine(
    ground_truth: COCO, detections: Detections, iou_type: str
) -> COCOeval:
    """The reference."""
    results = ground_truth.loadRes(detections.as_dicts(iou_type))
    return COCOeval(ground_truth, results, iou_type)


class UltrafastEval(COCOeval):
    """Matches and accumulates with ``ultrafast-pycocotools``, the rest is pycocotools.

    Parameters, printed output and the 12 numbers come from the base class.

    Raises:
        ImportError: if the package is not installed.
    """

    def __init__(
        self, ground_truth: COCO, detections: Detections, iou_type: str
    ) -> None:
        import ultrafast_pycocotools as package

        super().__init__(ground_truth, None, iou_type)
        print('Loading and preparing results...')
        start = time.time()
        # It reports what it does to standard output, differently.
        with contextlib.redirect_stdout(io.StringIO()):
            targets = package.COCO(ground_truth.dataset, verbose=False)
            is_array = iou_type == 'bbox'
            results = targets.loadRes(
                detections.as_array() if is_array else detections.as_dicts(iou_type)
            )
        _print_done(start)
        self._fast = package.COCOeval(
            targets, results, iou_type, print_function=lambda _: None
        )

    def evaluate(self) -> None:
        """Match detections to objects with ``self.params``."""
        print('Running per image evaluation...')
        print(f'Evaluate annotation type *{self.params.iouType}*')
        start = time.time()
        for name in ('imgIds', 'catIds', 'iouThrs', 'recThrs', 'maxDets', 'areaRng'):
            setattr(self._fast.params, name, getattr(self.params, name))
        self._fast.params.useCats = self.params.useCats
        self._fast.evaluate()
        self.params.maxDets = self._fast.params.maxDets  # sorted
        _print_done(start)

    def accumulate(self) -> None:
        """Make the precision and recall arrays in ``self.eval``."""
        print('Accumulating evaluation results...')
        start = time.time()
        self._fast.accumulate()
        self.eval = dict(self._fast.eval, params=self.params)
        _print_done(start)


def _print_done(start: float) -> None:
    print(f'DONE (t={time.time() - start:0.2f}s).')


ENGINES: dict[str, Callable] = {
    'ultrafast': UltrafastEval,
    'pycocotools': pycocotools_engine,
}


def choose_engine(name: str) -> Callable:
    """Find an engine.

    Args:
        name: one of ``ENGINES``, or ``'auto'``: the fast one if it is installed, else
            pycocotools, said once in the log.

    Raises:
        SettingError: if there is no such engine.
        ImportError: if an engine is asked for whose package is not installed.
    """
    if name not in ('auto', *ENGINES):
        raise SettingError(f"engine={name!r} must be 'auto' or one of {tuple(ENGINES)}")
    if name == 'pycocotools':
        return ENGINES[name]
    try:
        import ultrafast_pycocotools  # noqa: F401
    except ImportError as error:
        if name == 'ultrafast':
            raise MissingPackageError(
                f"engine='ultrafast' needs a package that cannot be imported ({error}):"
                ' pip install ultrafast-pycocotools, or leave out engine'
            ) from error
        _tell_that_it_is_slow()
        return ENGINES['pycocotools']
    return ENGINES['ultrafast']


@functools.cache
def _tell_that_it_is_slow() -> None:
    print_log(
        'COCO evaluation runs with pycocotools; it is much faster, with the same '
        'numbers, after pip install ultrafast-pycocotools',
        logger='current',
    )
