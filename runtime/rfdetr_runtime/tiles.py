"""Large pictures in overlapping tiles, and which detections of two are one object.

RF-DETR gives no duplicates within a picture, so detections of one tile are never judged
against each other. Two of different tiles are compared where both tiles saw the same
pixels, in the strip between their inner borders: there the boxes of one object agree,
whether it lies within the strip, is cut off by one border or by both. Nothing else is
suppressed or merged: a small object within a large one differs from it in the strip as
well, and boxes that have been joined are never compared again.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .postprocess import Found

AGREEMENT = 0.5
"""IoU, in what two tiles both saw, from which two boxes are one object."""
UNCONFIRMED = 0.5
"""What is left of the score of a part, where a tile that shows the place whole finds
nothing like it there."""
REACH = 0.02
"""Part of a tile's side within which a box ends at the tile's border."""
MARGIN = 0.1
"""Part of a tile's side from which on an object is far from the tile's border."""


def grid(size: tuple[int, int], tile: int, overlap: float) -> np.ndarray:
    """Place tiles on a picture.

    Args:
        size: (height, width) of the picture.
        tile: side of a tile in pixels; a shorter picture has one tile of its length.
        overlap: part of a side that neighbours share at least, in [0, 1).

    Returns:
        (T, 4) int xyxy, row by row, all of one size; T is 1 if the picture fits.
    """
    steps = []
    for length in size:
        side = min(tile, length)
        step = max(1, math.floor(side * (1 - overlap)))
        count = 1 + math.ceil((length - side) / step)
        starts = np.linspace(0, length - side, count).round().astype(int)
        steps.append([(start, start + side) for start in starts])
    rows, columns = steps
    return np.array([(x, y, r, b) for y, b in rows for x, r in columns])


def join_views(
    views: Sequence[Found],
    regions: np.ndarray,
    size: tuple[int, int],
    *,
    missed: float = 0.0,
) -> Found:
    """Join the detections of several views of a picture.

    A side of a joined box is the mean of those that are not cut off, weighted by score,
    by how fine the view is and by how far from its borders the object lies, or where
    all are cut off, the outermost. The score is the mean of those that are not cut off
    at all, weighted likewise by the distance, and mask and keypoints those of the best
    of them. Where all are cut off it is the mean by their areas, half of it if another
    view shows the place whole and found nothing like it, and all masks together.

    Args:
        views: detections of each, boxes in pixels of the picture, masks (n, H, W) bool
            of the whole picture or None.
        regions: (V, 4) xyxy, what each view shows of the picture.
        size: (height, width) of the picture.
        missed: how much of its score an object loses for the share of the views that
            show it wholly and have not found it; 0 for tiles.

    Returns:
        By descending score; those of a single view as they are, to the bit.
    """
    if len(views) == 1:
        return views[0]
    regions = np.asarray(regions, np.float32)
    view = np.repeat(np.arange(len(views)), [len(each) for each in views])
    boxes, scores, labels = (
        np.concatenate([np.asarray(getattr(each, name)) for each in views])
        for name in ('boxes', 'scores', 'labels')
    )
    cut = cut_sides(boxes, regions[view], size)
    partial, clear = cut.any(axis=1), _clearances(boxes, regions[view], size)
    areas = _areas(regions).astype(float)
    weights = np.maximum(scores, 1e-9) * (areas.min() / areas)[view] * clear
    # Who sees a part of an object, or next to nothing around it, knows less of it.
    trust = np.where(partial, np.maximum(_areas(boxes), 1e-9), clear)
    first = np.cumsum([0, *map(len, views)])
    made = []
    for group in same_objects(boxes, labels, view, regions):
        whole = group[~partial[group]]
        seen = whole if len(whole) else group
        best = seen[weights[seen].argmax()]
        box, score = boxes[best], scores[best]
        if len(group) > 1:
            box = _joined_box(boxes[group], cut[group], weights[group])
        if len(seen) > 1:
            score = np.average(scores[seen], weights=trust[seen])
        if not len(whole) and _is_shown_whole(box, regions, size):
            score = score * UNCONFIRMED
        if missed:
            inside = (box[:2] >= regions[:, :2]) & (box[2:] <= regions[:, 2:])
            showing = np.count_nonzero(inside.all(axis=1))
            score = score * (1 - missed * (1 - len(group) / max(showing, len(group))))
        made.append((box, score, best, [best] if len(whole) else group))
    order = sorted(range(len(made)), key=lambda place: -made[place][1])
    masks = None
    if views[0].masks is not None:
        masks = np.zeros((len(made), *size), bool)
        for target, place in zip(masks, order, strict=True):
            for each in made[place][3]:
                target |= views[view[each]].masks[each - first[view[each]]]
    best = np.array([made[place][2] for place in order], np.int64)
    points = {
        name: np.concatenate([getattr(each, name) for each in views])[best]
        for name in ('keypoints', 'keypoint_scores', 'keypoint_covariances')
        if getattr(views[0], name) is not None
    }
    return Found(
        np.array([made[place][0] for place in order], np.float32).reshape(-1, 4),
        np.array([made[place][1] for place in order], np.float32),
        labels[best].astype(np.int64),
        masks,
        **points,
    )


def _is_shown_whole(
    box: np.ndarray, regions: np.ndarray, size: tuple[int, int]
) -> bool:
    """Whether a view shows a place and does not cut it off."""
    inside = (box[:2] >= regions[:, :2]) & (box[2:] <= regions[:, 2:])
    cut = cut_sides(np.tile(box, (len(regions), 1)), regions, size)
    return bool((inside.all(axis=1) & ~cut.any(axis=1)).any())


def cut_sides(
    boxes: np.ndarray, regions: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Which sides of boxes lie at a border of their view that is none of the picture.

    Args:
        boxes: (n, 4) xyxy.
        regions: (n, 4) xyxy of the view of each.
        size: (height, width) of the picture.

    Returns:
        (n, 4) bool.
    """
    distances, sides = _inner_distances(boxes, regions, size)
    return distances <= np.maximum(2, REACH * sides)


def _clearances(
    boxes: np.ndarray, regions: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """How far boxes are from the borders that cut others off, (n,) up to 1."""
    distances, sides = _inner_distances(boxes, regions, size)
    return (distances / (MARGIN * sides)).min(axis=1).clip(1e-3, 1)


def _inner_distances(boxes, regions, size) -> tuple[np.ndarray, np.ndarray]:
    """How far each side is from its border, if that is inner; and the tiles' sides."""
    height, width = size
    inner = regions != np.array([0, 0, width, height], regions.dtype)
    sides = np.tile(regions[:, 2:] - regions[:, :2], 2)
    return np.where(inner, np.abs(boxes - regions), np.inf), sides


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes (..., 4), 0 of those that run backwards."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def same_objects(
    boxes: np.ndarray, labels: np.ndarray, view: np.ndarray, regions: np.ndarray
) -> list[np.ndarray]:
    """Group detections that are one object: at most one of each view.

    Args:
        boxes: (N, 4) xyxy in pixels of the picture.
        labels: (N,).
        view: (N,) view of each.
        regions: (V, 4) xyxy of the views.

    Returns:
        Indices of each group; every detection is in one.
    """
    pairs = list(_agreeing_pairs(boxes, labels, view, regions))
    if not pairs:
        return [np.array([each]) for each in range(len(boxes))]
    agreement, first, second = map(np.concatenate, zip(*pairs, strict=True))
    groups = [[each] for each in range(len(boxes))]
    for place in np.argsort(-agreement, kind='stable'):
        one, other = groups[first[place]], groups[second[place]]
        if one is other or {*view[one]} & {*view[other]}:
            continue
        if all(
            _are_one(boxes, view, regions, a, b) for a in one for b in other
        ):  # of what the views themselves gave, so that no chain grows
            one += other
            for each in other:
                groups[each] = one
    unique = {id(group): group for group in groups}
    return [np.array(sorted(group)) for group in unique.values()]


def _agreeing_pairs(boxes, labels, view, regions) -> Iterator[tuple]:
    """Agreement and indices of the pairs of each two views that overlap."""
    members = [np.flatnonzero(view == each) for each in range(len(regions))]
    for one in range(len(regions)):
        for other in range(one + 1, len(regions)):
            strip = _intersection(regions[one], regions[other])
            if (strip[2:] <= strip[:2]).any():
                continue
            a, b = members[one], members[other]
            parts = [_intersection(boxes[each], strip) for each in (a, b)]
            a, b = (
                each[(part[:, 2:] > part[:, :2]).all(axis=1)]
                for each, part in zip((a, b), parts, strict=True)
            )
            ious = _ious(
                _intersection(boxes[a], strip)[:, None], _intersection(boxes[b], strip)
            )
            rows, columns = np.nonzero(
                (ious >= AGREEMENT) & (labels[a][:, None] == labels[b])
            )
            yield ious[rows, columns], a[rows], b[columns]


def _are_one(boxes, view, regions, a: int, b: int) -> bool:
    """Whether nothing that both views saw tells two detections apart."""
    strip = _intersection(regions[view[a]], regions[view[b]])
    parts = [_intersection(boxes[each], strip) for each in (a, b)]
    # A part that is a line of pixels says nothing.
    least = np.maximum(2, REACH * (strip[2:] - strip[:2]))
    if not any((part[2:] - part[:2] > least).all() for part in parts):
        return True
    return bool(_ious(*parts) >= AGREEMENT)


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What two boxes (..., 4) have in common; empty if it runs backwards."""
    return np.concatenate(
        (np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])), -1
    )


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (..., 4), of which either may be empty."""
    a, b, both = map(_areas, (a, b, _intersection(a, b)))
    return both / np.maximum(a + b - both, 1e-9)


def _joined_box(boxes: np.ndarray, cut: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One box (4,) of those of a group, by the sides that no border cut off."""
    weights = weights[:, None] * ~cut
    outermost = np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))
    total = weights.sum(axis=0)
    mean = (boxes * weights).sum(axis=0) / np.maximum(total, 1e-30)
    return np.where(total > 0, mean, outermost)
