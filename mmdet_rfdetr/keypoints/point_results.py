"""From raw outputs to points in pixels, how certain they are, and fused scores."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.detections import top_scores
from ..precision import float32_island

RESULTS = 'keypoints', 'keypoint_scores', 'keypoint_covariances'
TINY = 1e-12
"""Smallest number whose logarithm is taken in the official fusion."""


@float32_island()
def decode_points(
    points: Tensor, active: Tensor, sizes: Tensor, areas: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring points into pixels.

    The precision is in units of the square root of the area of the box: the covariance
    in pixels is ``a`` times the inverse of ``L L^T``, stretched to the image.

    Args:
        points: (..., Kmax, 8) of the class of each detection.
        active: (..., Kmax) points that the class owns.
        sizes: (..., 2) width and height of the image in pixels.
        areas: (...) of the boxes relative to the image.

    Returns:
        Tuple of points (..., Kmax, 2), their scores (..., Kmax), the probability that
        they can be found, and covariances (..., Kmax, 2, 2); points that the class does
        not own are 0, and so is their score; their covariance is NaN.
    """
    owned = active[..., None]
    xy = torch.where(owned, points[..., :2] * sizes[..., None, :], 0)
    scores = torch.where(active, points[..., 2].sigmoid(), 0)
    l11, l21, l22 = points[..., 4].exp(), points[..., 5], points[..., 6].exp()
    # The columns of sqrt(a) times the inverse of L, in pixels: their product with
    # themselves is the covariance, which stays positive where L is extreme.
    spread = areas.clamp(min=0).sqrt()[..., None, None] * sizes[..., None, :]
    zero = torch.zeros_like(l11)
    across = torch.stack((1 / l11, zero), dim=-1) * spread
    along = torch.stack((-l21 / (l11 * l22), 1 / l22), dim=-1) * spread
    covariances = across[..., :, None] * across[..., None, :]
    covariances = covariances + along[..., :, None] * along[..., None, :]
    return xy, scores, torch.where(owned[..., None], covariances, torch.nan)


@float32_island()
def fuse_scores(
    scores: Tensor, points: Tensor, active: Tensor, known: Tensor, alpha: float
) -> Tensor:
    """Lower the scores of detections whose points are uncertain, as officially.

    With ``r = score * exp(-alpha * t)`` the result is ``r / (1 + r)``; ``t`` is the
    logarithm of the mean trace of the covariance, in units of the area of the box and
    weighted by findability.

    Args:
        scores: (...) of classes.
        points: (..., Kmax, 8) of the class.
        active: (..., Kmax) points that it owns; a class that owns none has t = 0.
        known: (...) whether the schema has the class; other scores stay.
        alpha: how much uncertainty counts.

    Returns:
        (...).
    """
    log_l11, l21, log_l22 = points[..., 4:7].unbind(-1)
    logs = -2 * log_l11, -2 * log_l22
    mixed = 2 * l21.abs().clamp(min=TINY).log() + logs[0] + logs[1]
    log_trace = torch.stack((*logs, mixed), dim=-1).logsumexp(-1)
    weight = points[..., 2].sigmoid().clamp(min=TINY).log()
    weight = torch.where(active, weight, -torch.inf)
    log_trace = torch.where(active, log_trace, 0)
    spread = (log_trace + weight).logsumexp(-1) - weight.logsumexp(-1)
    spread = torch.where(active.any(-1), spread, 0)
    fused = (scores.log() - alpha * spread).sigmoid().clamp(max=1 - 2**-24)
    return torch.where(known, fused, scores)


def in_order(found: Mapping[str, Tensor], scores: Tensor) -> dict[str, Tensor]:
    """Bring detections (B, n, ...) into the order of new scores (B, n)."""
    scores, order = top_scores(scores, scores.shape[-1])
    sorted_ = {}
    for name, values in found.items():
        index = order.view(*order.shape, *[1] * (values.dim() - 2))
        sorted_[name] = values.gather(1, index.expand(-1, -1, *values.shape[2:]))
    return dict(sorted_, scores=scores)
