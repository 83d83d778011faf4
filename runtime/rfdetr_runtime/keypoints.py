"""Keypoints out of the raw numbers of a file.

A file gives 8 numbers for each point of each query: x and y as parts of the sides, the
logits of "is in the picture" and "is not covered", the logarithm of l11, l21 and the
logarithm of l22 of a lower triangle L, and a part of the class logit. In units of the
square root of the box's area, L times its transpose is the inverse of the covariance.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np


def decode_keypoints(
    raw: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    scheme: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Points of detections, and their scores with them.

    Args:
        raw: (n, S * K, 8) of the queries; K slots a class, of the first S classes.
        boxes: (n, 4) xyxy in the picture, as parts of the sides.
        labels: (n,).
        scores: (n,) of the classes.
        scheme: ``counts`` of points of each of the S classes; ``score_mode``, where it
            is ``'fused'`` the scores fall with the uncertainty of the points to
            r / (1 + r), r = score / v ** ``alpha`` of the mean variance v.

    Returns:
        ``keypoints`` (n, K, 2) as parts of the sides, which may lie outside,
        ``keypoint_scores`` (n, K), ``keypoint_covariances`` (n, K, 2, 2) in parts of
        the sides, and ``scores``. Slots that a class has not are 0, of covariances NaN.
    """
    counts = np.array([*scheme['counts'], 0])
    kinds = np.minimum(labels, len(counts) - 1)
    slots = raw.astype(float).reshape(len(raw), len(counts) - 1, -1, 8)
    own = slots[np.arange(len(raw)), np.minimum(kinds, len(counts) - 2)]
    is_owned = np.arange(own.shape[1]) < counts[kinds, None]
    x, y, findable, _, first, mixed, second, _ = np.moveaxis(own, -1, 0)
    with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
        found = is_owned / (1 + np.exp(-findable))
        xx = np.exp(-2 * first) + (mixed * np.exp(-first - second)) ** 2
        xy, yy = -mixed * np.exp(-first - 2 * second), np.exp(-2 * second)
        means = (found * (xx + yy)).sum(1) / found.sum(1)
        ratios = scores * np.where(is_owned.any(1), means, 1) ** -scheme['alpha']
    if scheme['score_mode'] == 'fused':
        scores = np.where(kinds < len(counts) - 1, ratios / (1 + ratios), scores)
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1)
    spread = np.stack((xx, xy, xy, yy), -1) * areas[:, None, None]
    spread[~is_owned] = np.nan
    made = dict(
        keypoints=np.stack((x, y), -1) * is_owned[..., None],
        keypoint_scores=found,
        keypoint_covariances=spread.reshape(*x.shape, 2, 2),
        scores=scores,
    )
    return {name: values.astype(np.float32) for name, values in made.items()}
