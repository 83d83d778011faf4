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
    numbers, found = evaluator.params.maxDets, {}
    for name in (*PRECISIONS, *recall_names(numbers)):
        values, text = _select(evaluator, name, limit if name == 'mAP' else numbers[-1])
        found[name] = _mean(values, -1.0)
        print(f'{text} = {found[name]:0.3f}')
    return found


def class_precisions(evaluator: COCOeval) -> list[list[float]]:
    """Average the precision curves of each class.

    Args:
        evaluator: has accumulated; the largest of ``params.maxDets`` counts.

    Returns:
        The averages of each class, as in ``PRECISIONS``; NaN where there is no object.
    """
    limit = evaluator.params.maxDets[-1]
    columns = [_select(evaluator, name, limit)[0] for name in PRECISIONS]
    return [
        [_mean(values[..., label], np.nan) for values in columns]
        for label in range(columns[0].shape[-1])
    ]


def class_table(names: Sequence[str], precisions: list[list[float]]) -> str:
    """Print :func:`class_precisions` as mmdet does, one row for each class."""
    rows = [
        [name, *(str(round(value, 3)) for value in row)]
        for name, row in zip(names, precisions, strict=True)
    ]
    return AsciiTable([['category', *PRECISIONS], *rows]).table


def _select(evaluator: COCOeval, name: str, limit: int) -> tuple[np.ndarray, str]:
    """Take what is averaged.

    Args:
        evaluator: has accumulated.
        name: of the average.
        limit: detections that count where the name does not say.

    Returns:
        (thresholds, recalls, K) or (thresholds, K), -1 where there is no object; and
        how ``COCOeval`` writes the name.
    """
    params = evaluator.params
    what, _, number = name.partition('@')
    kind, _, part = what.partition('_')
    area, count = _AREAS.get(part, 'all'), int(number or limit)
    title, values = 'Average Recall     (AR)', evaluator.eval['recall']
    if kind == 'mAP':
        title, values = 'Average Precision  (AP)', evaluator.eval['precision']
    overlap = f'{params.iouThrs[0]:0.2f}:{params.iouThrs[-1]:0.2f}'
    if part.isdecimal():
        overlap = f'{int(part) / 100:0.2f}'
        values = values[params.iouThrs == int(part) / 100]
    values = values[..., params.areaRngLbl.index(area), params.maxDets.index(count)]
    return values, (
        f' {title} @[ IoU={overlap:<9} | area={area:>6s} | maxDets={count:>3d} ]'
    )


def _mean(values: np.ndarray, otherwise: float) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else otherwise
