"""Costs of pairing every query with every object of its image.

Objects lie along the rows of a cost matrix and queries along its columns: an
operation then runs over thousands of neighbouring numbers, where the other order
would leave it a handful of objects at a time. All arithmetic happens in place on
planes of that shape; nothing of shape (..., 4) is made.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.boxes import EPS
from ..precision import float32_island

CPU_BLOCK = 2**17
"""Entries of a cost matrix that a CPU works on at once, to stay in its cache."""

SMALLEST = 1e-37
"""About the least probability that float32 holds with all its digits."""


@float32_island()
def pair_costs(
    cls_scores: Tensor,
    bbox_preds: Tensor,
    labels: Tensor,
    boxes: Tensor,
    *,
    cls_weight: float,
    bbox_weight: float,
    iou_weight: float,
    alpha: float,
) -> Tensor:
    """Focal cost, L1 distance and negative GIoU of all pairs of all images.

    Args:
        cls_scores: (B, R, K) raw logits.
        bbox_preds: (B, R, 4) cxcywh.
        labels: (B, n) classes of the objects.
        boxes: (B, n, 4) cxcywh of the objects.
        cls_weight: weight of the focal cost.
        bbox_weight: weight of the L1 distance.
        iou_weight: weight of the GIoU.
        alpha: balance of the focal cost.

    Returns:
        (B, n, R) float32.
    """
    ours = bbox_preds.float().transpose(1, 2)[:, :, None].contiguous()
    queries = BoxPlanes.of(ours)
    # Sizes below zero count as zero from here on, but for their L1 distance.
    base = ours[:, 2:].clamp(max=0).sum(1).mul_(-bbox_weight)
    of_rows = labels[:, None].expand(-1, cls_scores.shape[1], -1)
    costs = cls_scores.float().gather(2, of_rows).transpose(1, 2).contiguous()
    step = max(1, labels.shape[1])
    if costs.is_cpu:
        step = max(1, CPU_BLOCK // max(1, base.numel()))
    for block, part in zip(costs.split(step, 1), boxes.split(step, 1), strict=True):
        focal_costs_(block, base, cls_weight, alpha)
        objects = BoxPlanes.of(part.transpose(1, 2)[..., None])
        _add_box_costs(block, queries, objects, bbox_weight, iou_weight)
    return costs


def replace_non_finite(costs: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Have a solver avoid pairs without a finite cost, as the official package does.

    Args:
        costs: (B, n, S, ...) of S stages.
        used: (B, n), False for padding.

    Returns:
        Tuple of the costs, finite where they are used, and whether one was not, a bool
        tensor without axes. What replaces it is dearer than all others of its stage.
    """
    used = used.view(*used.shape, *(1,) * (costs.dim() - 2))
    finite = costs.isfinite()
    known = finite & used
    axes = [axis for axis in range(costs.dim()) if axis != 2]
    highest = torch.where(known, costs, -torch.inf).amax(axes, keepdim=True)
    largest = torch.where(known, costs, 0).abs().amax(axes, keepdim=True)
    worst = highest + largest + 1
    limit = torch.finfo(costs.dtype).max
    worst = torch.where(worst.isfinite(), worst, limit)
    return torch.where(finite, costs, worst), (~finite & used).any()


def focal_costs_(logits: Tensor, base: Tensor, weight: float, alpha: float) -> None:
    r"""Replace logits by the cost of giving their class to their query.

    .. math::
        \alpha (1 - p)^2 (-\log p) - (1 - \alpha) p^2 (-\log(1 - p))

    The logarithms lose digits only where their factor is next to zero.

    Args:
        logits: float32 of any shape.
        base: what to add the costs to, for broadcasting.
        weight: factor of the costs.
        alpha: balance.
    """
    probability = logits.sigmoid()
    # Where p is too small for its logarithm, this is the logit.
    log_p = probability.clamp(min=SMALLEST).log_()
    torch.minimum(log_p, logits, out=log_p)
    minus_log_rest = logits - log_p
    missed = (1 - probability).square_()
    torch.addcmul(base, log_p, missed, value=-weight * alpha, out=logits)
    logits.addcmul_(probability.square_(), minus_log_rest, value=-weight * (1 - alpha))


class BoxPlanes(NamedTuple):
    """The numbers of boxes that the box costs need, ready to broadcast.

    Attributes:
        centre: (B, 2, ...) cx, cy.
        half: (B, 2, ...) half of width and height; negative ones count as zero.
        area: (B, ...).
    """

    centre: Tensor
    half: Tensor
    area: Tensor

    @classmethod
    def of(cls, boxes: Tensor) -> 'BoxPlanes':
        """Compute them for boxes (B, 4, ...) cxcywh."""
        side = boxes[:, 2:].clamp(min=0)
        return cls(boxes[:, :2], side / 2, side.prod(1))


def _add_box_costs(
    costs: Tensor,
    ours: BoxPlanes,
    theirs: BoxPlanes,
    bbox_weight: float,
    iou_weight: float,
) -> None:
    """Add L1 and GIoU costs to (B, n, R), of planes (B, 1, R) and (B, n, 1)."""
    intersection, hull = _along_axis(costs, ours, theirs, 0, bbox_weight)
    overlap, span = _along_axis(costs, ours, theirs, 1, bbox_weight)
    intersection.mul_(overlap)
    hull.mul_(span)
    union = torch.add(ours.area, theirs.area, out=overlap).sub_(intersection)
    # GIoU is intersection / union - (hull - union) / hull.
    safe_union = torch.clamp(union, min=EPS, out=span)
    costs.addcdiv_(intersection, safe_union, value=-iou_weight)
    costs.addcdiv_(union.sub_(hull), hull.clamp_(min=EPS), value=-iou_weight)


def _along_axis(
    costs: Tensor, ours: BoxPlanes, theirs: BoxPlanes, axis: int, weight: float
) -> tuple[Tensor, Tensor]:
    """Add the L1 cost of an axis; return by how much boxes overlap, and span, there.

    All come from two distances: of the centres, and of the halves of the sides. The
    boxes overlap by the sum of the halves less the larger distance (which is negative
    where there is a gap), and span the sum plus that distance.
    """
    apart = (ours.centre[:, axis] - theirs.centre[:, axis]).abs_()
    unlike = (ours.half[:, axis] - theirs.half[:, axis]).abs_()
    costs.add_(apart, alpha=weight).add_(unlike, alpha=2 * weight)
    torch.maximum(apart, unlike, out=apart)
    reach = torch.add(ours.half[:, axis], theirs.half[:, axis], out=unlike)
    return (reach - apart).clamp_(min=0), reach.add_(apart)
