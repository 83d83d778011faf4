"""Average precision and recall from what an engine has counted."""

import contextlib
import io
import sys
from collections.abc import Sequence

import numpy as np
from mmdet.datasets.api_wrappers import COCOeval
from terminaltables import AsciiTable

# Ends of names, and positions along the axis of areas.
_AREAS = {'s': 'small', 'm': 'medium', 'l': 'large'}
CLASSES_AT_ONCE = 128
"""Classes that are counted together: the curves of 10,000 take 2 GB."""
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


def count(evaluator: COCOeval) -> None:
    """Let an engine count, ``CLASSES_AT_ONCE``, and keep the averages of its curves.

    It prints for the first of them only.

    Args:
        evaluator: has all ``params``. In its ``eval`` are, at the end, ``precision``
            and ``recall``, both (T, K, A, M): thresholds, classes, areas and numbers of
            detections, as ``params`` has them; -1 where there is no object.
    """
    params, labels, parts = evaluator.params, evaluator.params.catIds, []
    at_once = CLASSES_AT_ONCE if params.useCats else len(labels)
    for start in range(0, len(labels), at_once):
        params.catIds = labels[start : start + at_once]
        with contextlib.redirect_stdout(io.StringIO() if start else sys.stdout):
            evaluator.evaluate()
            evaluator.accumulate()
        found = evaluator.eval
        parts.append((found['precision'].mean(axis=1), found['recall']))
    joined = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    evaluator.eval = dict(zip(('precision', 'recall'), joined, strict=True))


def summarize(evaluator: COCOeval, limit: int) -> dict[str, float]:
    """Compute and print the averages as ``COCOeval.summarize`` does.

    That takes 100 detections for the first of them, whatever ``maxDets`` says, and
    needs three numbers in it.

    Args:
        evaluator: what :func:`count` left.
        limit: detections of a class in an image that count for ``mAP``, one of
            ``maxDets``. The largest counts for the other precisions, as in mmdet.

    Returns:
        Unrounded averages by the names of ``PRECISIONS`` and :func:`recall_names`; -1
        where there is no object.
    """
    numbers, found = evaluator.params.maxDets, {}
    for name in (*PRECISIONS, *recall_names(numbers)):
        values, text = _select(evaluator, name, limit if name == 'mAP' else 0)
        found[name] = _mean(values, -1.0)
        print(f'{text} = {found[name]:0.3f}')
    return found


def class_precisions(
    evaluator: COCOeval, names: Sequence[str]
) -> tuple[dict[str, float], str]:
    """Average the precisions of each class, and print them as mmdet does.

    Args:
        evaluator: what :func:`count` left; the largest of ``params.maxDets`` counts.
        names: of the K classes.

    Returns:
        The mean average precision of each class, NaN where there is no object; and a
        table with one row a class, in whose columns are ``PRECISIONS``.
    """
    columns = [_select(evaluator, name)[0].T for name in PRECISIONS]
    found, rows = {}, [['category', *PRECISIONS]]
    for name, *parts in zip(names, *columns, strict=True):
        row = [_mean(values, np.nan) for values in parts]
        found[name] = row[0]
        rows.append([name, *(str(round(value, 3)) for value in row)])
    return found, AsciiTable(rows).table


def _select(evaluator: COCOeval, name: str, limit: int = 0) -> tuple[np.ndarray, str]:
    """Take what is averaged.

    Args:
        evaluator: what :func:`count` left.
        name: of the average.
        limit: detections that count where the name does not say; 0 for the largest of
            ``params.maxDets``.

    Returns:
        (thresholds, K), -1 where there is no object; and how ``COCOeval`` writes the
        name.
    """
    params = evaluator.params
    what, _, number = name.partition('@')
    kind, _, part = what.partition('_')
    area, number = _AREAS.get(part, 'all'), int(number or limit or params.maxDets[-1])
    title, values = 'Average Recall     (AR)', evaluator.eval['recall']
    if kind == 'mAP':
        title, values = 'Average Precision  (AP)', evaluator.eval['precision']
    overlap = f'{params.iouThrs[0]:0.2f}:{params.iouThrs[-1]:0.2f}'
    if part.isdecimal():
        overlap = f'{int(part) / 100:0.2f}'
        values = values[params.iouThrs == int(part) / 100]
    values = values[..., params.areaRngLbl.index(area), params.maxDets.index(number)]
    return values, (
        f' {title} @[ IoU={overlap:<9} | area={area:>6s} | maxDets={number:>3d} ]'
    )


def _mean(values: np.ndarray, otherwise: float) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else otherwise
