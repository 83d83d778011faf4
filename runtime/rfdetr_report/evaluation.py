"""COCO's numbers, and which detection is which object, from one evaluation."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

_ENTRIES = 400_000  # of pycocotools at once, some kB each
_SIZES = ('small', 'medium', 'large')


@dataclass(frozen=True)
class Settings:
    """How detections are counted.

    Attributes:
        max_dets: numbers of detections of a class in an image, ascending; the last one
            counts for all but ``AP``.
        limit: the one of them that counts for ``AP``.
        iou_thrs: overlaps; those of COCO unless given.
    """

    max_dets: Sequence[int] = (1, 10, 100)
    limit: int = 100
    iou_thrs: Sequence[float] | None = None


@dataclass
class Best:
    """The score at which precision and recall have the best F1."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass
class ClassNumbers:
    """What is known of a class.

    Attributes:
        name: of the class.
        objects: that were to be found, without crowds.
        ap: average precision, None without objects.
        ap50: likewise at an IoU of 0.5.
        best: None where nothing was right.
        curve: (101,) precision at rising recall, an IoU of 0.5; None without objects.
    """

    name: str
    objects: int
    ap: float | None
    ap50: float | None
    best: Best | None
    curve: np.ndarray | None


@dataclass
class Matches:
    """Detections D at an IoU of 0.5, as pycocotools matched them within their class.

    Attributes:
        ids: (D,) of the detections.
        labels: (D,).
        scores: (D,).
        objects: (D,) ids of their objects, 0 for none.
    """

    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    objects: np.ndarray


@dataclass
class Evaluation:
    """Numbers of boxes or of masks.

    Attributes:
        kind: ``'bbox'`` or ``'segm'``.
        overlaps: over which ``AP`` is a mean.
        overall: by name; None where there is no object.
        classes: by label.
        curves: mean precision of the classes, (101,), by what the overlap is.
        best: of all classes together.
        matches: of the detections.
    """

    kind: str
    overlaps: str
    overall: dict[str, float | None]
    classes: list[ClassNumbers]
    curves: dict[str, np.ndarray]
    best: Best | None
    matches: Matches


def evaluate(
    truth: COCO,
    found: COCO,
    kind: str,
    settings: Settings,
    step: Callable[[int], None] = lambda classes: None,
) -> Evaluation:
    """Evaluate with pycocotools, some classes at a time.

    Args:
        truth: what was to be found.
        found: the detections.
        kind: ``'bbox'`` or ``'segm'``.
        settings: how it is counted.
        step: called with the number of classes that are done.
    """
    evaluator = COCOeval(truth, found, kind)
    params = evaluator.params
    params.maxDets = list(settings.max_dets)
    if settings.iou_thrs is not None:
        params.iouThrs = np.array(settings.iou_thrs, float)
    labels, images = list(params.catIds), len(params.imgIds)
    half = int(np.abs(params.iouThrs - 0.5).argmin())
    at_once = max(16, _ENTRIES // (len(params.areaRng) * max(images, 1)))
    precisions, recalls, curves, parts = [], [], [], []
    for start in range(0, len(labels), at_once):
        params.catIds = labels[start : start + at_once]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.evaluate()
            evaluator.accumulate()
        counted = evaluator.eval['precision']  # (T, R, K, A, M)
        precisions.append(counted.mean(axis=1))
        recalls.append(evaluator.eval['recall'])
        curves.append(counted[:, :, :, 0, -1])
        for place, entry in enumerate(evaluator.evalImgs):
            # By class, area and image; the first area holds all.
            if entry is not None and not place // images % len(params.areaRng):
                counts = ~entry['dtIgnore'][half].astype(bool)
                label = np.full(len(counts), entry['category_id'])
                matched = entry['dtMatches'][half]
                columns = entry['dtIds'], label, entry['dtScores'], matched
                parts.append([np.asarray(each)[counts] for each in columns])
        step(min(start + at_once, len(labels)))
    precision, recall, curve = (
        np.concatenate(each, axis)
        for each, axis in ((precisions, 1), (recalls, 1), (curves, 2))
    )
    columns = zip(*parts, strict=True) if parts else [[np.zeros(0)]] * 4
    ids, labels, scores, objects = map(np.concatenate, columns)
    matches = Matches(ids.astype(int), labels.astype(int), scores, objects.astype(int))
    is_object = np.array([not each['iscrowd'] for each in truth.anns.values()], bool)
    return Evaluation(
        kind,
        f'{params.iouThrs[0]:.2f} to {params.iouThrs[-1]:.2f}',
        _overall(precision, recall, params, settings.limit),
        _classes(truth, precision, curve[half], matches, params, settings.limit),
        _mean_curves(curve, params.iouThrs),
        best_f1(matches.scores, matches.objects > 0, int(is_object.sum())),
        matches,
    )


def _overall(precision, recall, params, limit: int) -> dict[str, float | None]:
    """Averages under the names of COCO."""
    at_limit = params.maxDets.index(limit)
    found = {'AP': _mean(precision[:, :, 0, at_limit])}
    for percent in (50, 75):
        chosen = np.isclose(params.iouThrs, percent / 100)
        found[f'AP{percent}'] = _mean(precision[chosen][:, :, 0, -1])
    for area, name in enumerate(_SIZES, start=1):
        found[f'AP {name}'] = _mean(precision[:, :, area, -1])
    found['AR'] = _mean(recall[:, :, 0, -1])
    return found


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _classes(truth, precision, curve, matches, params, limit) -> list[ClassNumbers]:
    at_limit, rows = params.maxDets.index(limit), []
    half = np.isclose(params.iouThrs, 0.5)
    objects = np.bincount(
        [a['category_id'] for a in truth.anns.values() if not a['iscrowd']],
        minlength=len(truth.cats),
    )
    for label, each in truth.cats.items():
        chosen = matches.labels == label
        is_right = matches.objects[chosen] > 0
        best = best_f1(matches.scores[chosen], is_right, int(objects[label]))
        rows.append(
            ClassNumbers(
                each['name'],
                int(objects[label]),
                _mean(precision[:, label, 0, at_limit]),
                _mean(precision[half][:, label, 0, -1]),
                best,
                curve[:, label] if objects[label] else None,
            )
        )
    return rows


def _mean_curves(curve: np.ndarray, overlaps: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over the classes with objects of (T, R, K)."""
    curve = curve[:, :, (curve > -1).all(axis=(0, 1))]
    if not curve.shape[2]:
        return {}
    found = {
        f'IoU {overlap:.2f}': curve[np.isclose(overlaps, overlap)][0].mean(axis=1)
        for overlap in (0.5, 0.75, 0.9)
        if np.isclose(overlaps, overlap).any()
    }
    name = f'mean of IoU {overlaps[0]:.2f} to {overlaps[-1]:.2f}'
    return {**found, name: curve.mean(axis=(0, 2))}


def best_f1(scores: np.ndarray, is_right: np.ndarray, objects: int) -> Best | None:
    """Find the score at which precision and recall have the best F1.

    Args:
        scores: (D,).
        is_right: (D,) whether a detection is an object.
        objects: how many there are.

    Returns:
        None where nothing is right. Detections of the score itself are kept.
    """
    order = np.argsort(-scores, kind='stable')
    scores, right = scores[order], np.cumsum(is_right[order])
    if not objects or not len(scores) or not right[-1]:
        return None
    kept = np.arange(1, len(scores) + 1)
    f1 = 2 * right / (kept + objects)
    f1[:-1][scores[1:] == scores[:-1]] = -1  # equal scores are kept together
    at = int(f1.argmax())
    ratios = right[at] / kept[at], right[at] / objects
    return Best(float(scores[at]), *map(float, ratios), float(f1[at]))
