"""Which detections of each image are right, so that images can be left out later."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as overlaps
from pycocotools.coco import COCO

GROUPS = 20
"""Groups of images that are left out in turn."""
_ALMOST_ONE = 1 - 1e-10


class Matches(NamedTuple):
    """The matches of a data set, by which average precision is computed.

    Attributes:
        scores: (D,) of all detections, ordered by image, and falling within each image
            and class.
        images: (D,) image of each, counted from 0.
        labels: (D,) class of each.
        right: (T, D) whether it has an object of its own, at each threshold.
        ignored: (T, D) whether it lies in a crowd region.
        objects: (images, K), how many there are that are no crowd.
    """

    scores: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray

    @classmethod
    def of(
        cls,
        ground_truth: COCO,
        detections: np.ndarray,
        thresholds: np.ndarray,
        limit: int,
    ) -> 'Matches':
        """Match by the rules of pycocotools.

        Args:
            ground_truth: images counted from 0, with categories that are labels.
            detections: (D, 7) image, corner x and y, width, height, score, label.
            thresholds: (T,) smallest overlaps.
            limit: detections of a class in an image that count.
        """
        order = np.lexsort((-detections[:, 5], detections[:, 6], detections[:, 0]))
        columns = detections[order]
        pairs = columns[:, [0, 6]].astype(int)
        starts = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1)])
        lengths = np.diff(np.r_[starts, len(pairs)])
        rank = np.arange(len(pairs)) - np.repeat(starts, lengths)
        columns, pairs = columns[rank < limit], pairs[rank < limit]
        objects: dict[tuple[int, int], list[dict]] = {}
        for each in ground_truth.anns.values():
            key = each['image_id'], each['category_id']
            objects.setdefault(key, []).append(each)
        shape = len(thresholds), len(pairs)
        right, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
        counts = np.zeros((len(ground_truth.imgs), len(ground_truth.cats)), int)
        edges = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(1), True])
        places = {
            tuple(pairs[start]): slice(start, end)
            for start, end in zip(edges[:-1], edges[1:], strict=True)
            if len(pairs)
        }
        for key, found in objects.items():
            crowd = np.array([each['iscrowd'] for each in found], bool)
            counts[key] = (~crowd).sum()
            if place := places.get(key):
                boxes = np.array([each['bbox'] for each in found], float)
                # Crowd regions come last, as pycocotools has them.
                boxes, crowd = boxes[np.argsort(crowd, kind='stable')], np.sort(crowd)
                ious = overlaps.iou(columns[place, 1:5], boxes, crowd.astype(np.uint8))
                part = _match(ious, crowd, np.minimum(thresholds, _ALMOST_ONE))
                right[:, place], ignored[:, place] = part
        return cls(columns[:, 5], pairs[:, 0], pairs[:, 1], right, ignored, counts)

    def average_precision(self, recalls: np.ndarray, left_out: int = -1) -> float:
        """Mean over classes and thresholds; 0 without objects.

        Args:
            recalls: at which precision is read.
            left_out: the group of images that does not count, of ``groups``; -1: none.
        """
        precisions = []
        kept = self.images % self.groups != left_out
        rows = np.arange(len(self.objects)) % self.groups != left_out
        totals = self.objects[rows].sum(0)
        for label in np.flatnonzero(totals):
            chosen = np.flatnonzero(kept & (self.labels == label))
            chosen = chosen[np.argsort(-self.scores[chosen], kind='stable')]
            right, ignored = self.right[:, chosen], self.ignored[:, chosen]
            hits = np.cumsum(right, axis=1, dtype=float)
            misses = np.cumsum(~right & ~ignored, axis=1, dtype=float)
            precision = hits / (hits + misses + np.spacing(1))
            best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            best = np.pad(best, ((0, 0), (0, 1)))  # 0 where a recall is not reached
            for row, reached in zip(best, hits / totals[label], strict=True):
                precisions.append(row[np.searchsorted(reached, recalls)].mean())
        return float(np.mean(precisions)) if precisions else 0.0

    @property
    def groups(self) -> int:
        """Groups of images: every n-th image is of one group."""
        return min(GROUPS, len(self.objects))

    def jackknife(self, recalls: np.ndarray) -> list[float]:
        """Average precision without each group of images in turn."""
        return [self.average_precision(recalls, group) for group in range(self.groups)]


def _match(
    ious: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give each detection, best first, the free object that it overlaps most.

    Args:
        ious: (D, G).
        crowd: (G,), crowd regions last; they are never taken.
        thresholds: (T,).

    Returns:
        Whether each detection has an object, and lies in a crowd region, both (T, D).
    """
    single = int((~crowd).sum())
    rows = np.arange(len(thresholds))
    free = np.ones((len(thresholds), single), bool)
    right = np.zeros((len(thresholds), len(ious)), bool)
    ignored = np.zeros_like(right)
    for place in np.flatnonzero(ious.max(axis=1) >= thresholds.min()):
        if single:
            # Of equal overlaps the last counts, as in pycocotools.
            reached = np.where(free, ious[place, :single], -1.0)[:, ::-1]
            best = reached.argmax(1)
            hit = reached[rows, best] >= thresholds
            free[rows[hit], single - 1 - best[hit]] = False
            right[:, place] = hit
        if single < len(crowd):
            inside = ious[place, single:].max() >= thresholds
            ignored[:, place] = inside & ~right[:, place]
    return right, ignored
