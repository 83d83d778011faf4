"""Average precision and recall from what an engine has counted."""

from collections.abc import Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from terminaltables import AsciiTable

# Ends of names, and positions along the axis of areas.
_AREAS = {'s': 'small', 'm': 'medium', 'l': 'large'}
PRECISIONS = ('mAP', 'mAP_50', 'mAP_75', *(f'mAP_{area}' for area in _AREAS))


def recall_names(numbers: Sequence[int]) -> tuple[str, ...]:
    """Name average recalls as mmdet does, by the detections that count.

    Args:
        numbers: detections of an image that count, ascending.
    """
    return (
        *(f'AR@{number}' for number in numbers),
        *(f'AR_{area}@{numbers[-1]}' for area in _AREAS),
    )


def summarize(evaluator: COCOeval, limit: int) -> dict[str, float]:
    """Compute and print the averages as ``COCOeval.summarize`` does.

    That takes 100 detections for the first of them, whatever ``maxDets`` says, and
    needs three numbers in it.

    Args:
        evaluator: has accumulated; ``params.maxDets`` ascends.
        limit: detections of a class in an image that count for ``mAP``, one of
            ``maxDets``. The largest counts for the other precisions, as in mmdet.

    Returns:
        Unrounded averages by the names of ``PRECISIONS`` and :func:`recall_names`; -1
        where there is no object.
    """
    params, found = evaluator.params, {}
    numbers, thresholds = params.maxDets, params.iouThrs
    for name in (*PRECISIONS, *recall_names(numbers)):
        what, _, number = name.partition('@')
        kind, _, part = what.partition('_')
        area = _AREAS.get(part, 'all')
        count = int(number or (limit if name == 'mAP' else numbers[-1]))
        title, values = 'Average Recall     (AR)', evaluator.eval['recall']
        if kind == 'mAP':
            title, values = 'Average Precision  (AP)', evaluator.eval['precision']
        overlap = f'{thresholds[0]:0.2f}:{thresholds[-1]:0.2f}'
        if part.isdecimal():
            overlap = f'{int(part) / 100:0.2f}'
            values = values[thresholds == int(part) / 100]
        chosen = values[..., params.areaRngLbl.index(area), numbers.index(count)]
        found[name] = _mean(chosen, -1.0)
        print(
            f' {title} @[ IoU={overlap:<9} | area={area:>6s} | maxDets={count:>3d} ] '
            f'= {found[name]:0.3f}'
        )
    return found


def class_precisions(precision: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Average the precision curves of each class.

    Args:
        precision: (thresholds, recalls, K, areas, numbers of detections) as in
            ``COCOeval.eval``, -1 where there is none; the last number counts.
        thresholds: overlaps of the first axis.

    Returns:
        (K, 6): over all thresholds, at 0.5, at 0.75, and of small, medium and large
        objects; NaN where there is no object.
    """
    every, *by_area = np.moveaxis(precision[..., -1], 3, 0)
    at = [every[thresholds == threshold] for threshold in (0.5, 0.75)]
    return np.array(
        [
            [_mean(part[:, :, k], np.nan) for part in (every, *at, *by_area)]
            for k in range(precision.shape[2])
        ]
    )


def class_table(names: Sequence[str], precisions: np.ndarray) -> str:
    """Print :func:`class_precisions` as mmdet does, one row for each class."""
    rows = [
        [name, *(str(round(value, 3)) for value in row)]
        for name, row in zip(names, precisions.tolist(), strict=True)
    ]
    return AsciiTable([['category', *PRECISIONS], *rows]).table


def _mean(values: np.ndarray, otherwise: float) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else otherwise
