"""Losses and matching costs of points.

``d`` is the distance of a point from the true one, ``a`` the area of the true box, both
relative to the image, and ``L = [[l11, 0], [l21, l22]]`` the predicted precision, of
which ``log l11``, ``l21`` and ``log l22`` are channels 4 to 6. The four terms:

- ``l1``: |dx| + |dy| over the square root of ``a``, mean over labelled points;
- ``findable``: cross-entropy of whether a point is labelled, mean over its class;
- ``visible``: of whether it is seen, likewise;
- ``nll``: that of a Gaussian without its constant,
  ``|L^T d|^2 / 2a - log l11 - log l22``, mean over labelled points; it has no lower
  bound.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import float32_island

TERMS = ('l1', 'findable', 'visible', 'nll')
SMALLEST_AREA = torch.finfo(torch.float32).eps
LARGEST = torch.finfo(torch.float32).max
CHANNELS = 8


class TargetPoints(NamedTuple):
    """True points of T objects.

    Attributes:
        xy: (T, Kmax, 2) relative to the image.
        visibility: (T, Kmax) 0 not labelled, 1 labelled, 2 seen.
    """

    xy: Tensor
    visibility: Tensor

    def labelled(self, areas: Tensor) -> Tensor:
        """Points (T, Kmax) with a place, of objects whose area (T,) can divide."""
        known = (self.visibility > 0) & self.visibility.isfinite()
        usable = areas.isfinite() & (areas > SMALLEST_AREA)
        return known & self.xy.isfinite().all(-1) & usable[:, None]


@float32_island()
def point_losses(
    points: Tensor, true: TargetPoints, areas: Tensor, active: Tensor
) -> dict[str, Tensor]:
    """Losses of matched pairs.

    What is not finite in a channel leaves value and gradient of the terms that use it.

    Args:
        points: (pairs, Kmax, 8) of the class of the object.
        true: the points of each pair.
        areas: (pairs,) of the true boxes.
        active: (pairs, Kmax) points that the class owns.

    Returns:
        (pairs,) by :data:`TERMS`.
    """
    finite = points.isfinite()
    placed = active & true.labelled(areas) & finite[..., :2].all(-1)
    areas = torch.where(areas > SMALLEST_AREA, areas, 1)[:, None]
    distance = _where(placed, points[..., :2] - true.xy.nan_to_num())
    terms = dict(l1=_mean(distance.abs().sum(-1) / areas.sqrt(), placed))
    for channel, name in ((2, 'findable'), (3, 'visible')):
        known = active & finite[..., channel]
        target = (true.visibility > channel - 2).float()
        logits = torch.where(known, points[..., channel], 0)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none')
        terms[name] = _mean(entropy, known)
    certain = placed & finite[..., 4:7].all(-1)
    with torch.no_grad():  # A precision may be finite and its exponential not.
        squares = _squares(_where(certain, points[..., 4:7]), distance)
        certain &= squares.isfinite()
    precision = _where(certain, points[..., 4:7])
    squares = _squares(precision, _where(certain, distance))
    nll = squares / (2 * areas) - precision[..., 0] - precision[..., 2]
    nll = nll.nan_to_num(0.0, LARGEST / 2, -LARGEST)
    return dict(terms, nll=_mean(nll, certain))


def _where(mask: Tensor, values: Tensor) -> Tensor:
    """Values (..., n) where the mask (...) says so, 0 elsewhere."""
    return torch.where(mask[..., None], values, 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis where the mask says so; 0 of nothing."""
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1).clamp(min=1)


def _squares(precision: Tensor, distance: Tensor) -> Tensor:
    """Squared length (...) of distances (..., 2) in units of the deviation."""
    dx, dy = distance.unbind(-1)
    log_l11, l21, log_l22 = precision.unbind(-1)
    along = log_l11.exp() * dx + l21 * dy
    return along.square() + (log_l22.exp() * dy).square()


@float32_island()
def add_point_costs(
    costs: Tensor,
    points: Tensor,
    true: TargetPoints,
    areas: Tensor,
    labels: Tensor,
    active: Tensor,
    weights: dict[str, float],
) -> None:
    """Add the same terms of all pairs of a query and an object of its image.

    One point of all pairs is worked on at a time: nothing is ``Kmax`` times as large as
    the costs. Logits that are not finite are left for the solver, which avoids them.

    Args:
        costs: (B, n, R) float32, changed in place.
        points: (B, R, S, Kmax, 8).
        true: (B * n) points, image by image.
        areas: (B * n) of the true boxes.
        labels: (B, n) of the objects.
        active: (S, Kmax) points that each class owns.
        weights: by :data:`TERMS`.
    """
    images, count, _ = costs.shape
    classes, most = active.shape
    owned = labels < classes
    labels = labels.clamp(max=classes - 1)
    used = active[labels] & owned[..., None]
    placed = used & true.labelled(areas).view(used.shape)
    areas = areas.view(images, count, 1).clamp(min=SMALLEST_AREA)
    number = placed.sum(-1, keepdim=True).clamp(min=1)
    xy = true.xy.view(images, count, most, 2)
    # (8, Kmax, B, S, R): a channel of a point as planes of classes.
    planes = points.permute(4, 3, 0, 2, 1)
    sums = dict.fromkeys(('l1', 'nll'), 0)
    for index in range(most):
        x, y, *_, log_l11, l21, log_l22, _ = (
            plane if classes == 1 else plane.take_along_dim(labels[..., None], 1)
            for plane in planes[:, index]
        )
        here = placed[..., index, None]
        dx, dy = x - xy[..., index, :1], y - xy[..., index, 1:]
        distance = torch.where(here, dx.abs() + dy.abs(), 0)
        sums['l1'] = sums['l1'] + distance
        squares = (log_l11.exp() * dx + l21 * dy).square_()
        squares += (log_l22.exp() * dy).square_()
        known = here & squares.isfinite() & (log_l11 + log_l22).isfinite()
        nll = (squares / (2 * areas) - log_l11 - log_l22).clamp_(max=LARGEST / 2)
        sums['nll'] = sums['nll'] + torch.where(known, nll, 0)
    l1 = (sums['l1'] / number / areas.sqrt()).nan_to_num_(0.0, 0.0, 0.0)
    costs.add_(l1, alpha=weights['l1'])
    costs.add_(sums['nll'] / number, alpha=weights['nll'])
    visibility = true.visibility.view(images, count, most)
    total = used.sum(-1, keepdim=True).clamp(min=1)
    for channel, name in ((2, 'findable'), (3, 'visible')):
        logits = planes[channel].permute(1, 2, 0, 3)
        positive = (visibility > channel - 2).float() * used
        for label in range(classes):
            ours = logits[:, label]
            entropy = used.float() @ F.softplus(ours) - positive @ ours
            of_class = (labels == label)[..., None]
            entropy = torch.where(of_class, entropy / total, 0)
            costs.add_(entropy, alpha=weights[name])
