"""Average precision by a package that is faster than pycocotools, or in less memory."""

import contextlib
import io
import time

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from ..errors import MissingPackageError
from ..evaluation.engines import ENGINES, pycocotools_engine


class LeanEval(COCOeval):
    """pycocotools without an empty list for each image and class that have nothing."""

    def _prepare(self) -> None:
        super()._prepare()
        self._gts, self._dts = _Lists(self._gts), _Lists(self._dts)


class _Lists(dict):
    def __missing__(self, key: tuple) -> tuple:
        return ()


def lean_engine(
    ground_truth: COCO, detections: np.ndarray | list[dict], iou_type: str
) -> LeanEval:
    """The reference, in less memory."""
    plain = pycocotools_engine(ground_truth, detections, iou_type)
    return LeanEval(ground_truth, plain.cocoDt, iou_type)


class UltrafastEval(COCOeval):
    """Matches and accumulates with ``ultrafast-pycocotools``, the rest is pycocotools.

    Parameters, printed output and the 12 numbers come from the base class.

    Raises:
        ImportError: if the package is not installed.
    """

    def __init__(
        self, ground_truth: COCO, detections: np.ndarray | list[dict], iou_type: str
    ) -> None:
        import ultrafast_pycocotools as package

        super().__init__(ground_truth, None, iou_type)
        print('Loading and preparing results...')
        start = time.time()
        # It reports what it does to standard output, differently.
        with contextlib.redirect_stdout(io.StringIO()):
            targets = package.COCO(ground_truth.dataset, verbose=False)
            results = targets.loadRes(detections)
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
        if self.params.iouType == 'keypoints':
            self._fast.params.kpt_oks_sigmas = self.params.kpt_oks_sigmas
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


def load_ultrafast() -> type[UltrafastEval]:
    """Make sure that the package is there.

    Raises:
        MissingPackageError: if it is not.
    """
    try:
        import ultrafast_pycocotools  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "evaluation with engine='ultrafast', much faster and with the same "
            f'numbers, needs a package that cannot be imported ({error}): '
            'pip install ultrafast-pycocotools'
        ) from error
    return UltrafastEval


ENGINES['pycocotools'] = lambda: lean_engine
ENGINES['ultrafast'] = load_ultrafast
