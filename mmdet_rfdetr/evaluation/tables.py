"""Average precision of each class."""

from collections.abc import Sequence

import numpy as np
from terminaltables import AsciiTable

_HEADER = ['category', 'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']
# Positions among the thresholds 0.5, 0.55 ... 0.95.
_IOU_50, _IOU_75 = slice(0, 1), slice(5, 6)


def class_precisions(precision: np.ndarray) -> np.ndarray:
    """Average the precision curves of each class.

    Args:
        precision: (thresholds, recalls, K, areas, numbers of detections) as in
            ``COCOeval.eval``, -1 where there is none; the last number counts.

    Returns:
        (K, 6): over all thresholds, at 0.5, at 0.75, and of small, medium and large
        objects, rounded to three places; NaN where there is no object.
    """
    every, small, medium, large = np.moveaxis(precision[..., -1], 3, 0)
    parts = [every, every[_IOU_50], every[_IOU_75], small, medium, large]
    return np.array(
        [[_mean(part[:, :, k]) for part in parts] for k in range(precision.shape[2])]
    )


def class_table(names: Sequence[str], precisions: np.ndarray) -> str:
    """Print :func:`class_precisions` as mmdet does, one row for each class."""
    rows = [
        [name, *map(str, row)]
        for name, row in zip(names, precisions.tolist(), strict=True)
    ]
    return AsciiTable([_HEADER, *rows]).table


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return round(np.mean(values), 3) if values.size else float('nan')
