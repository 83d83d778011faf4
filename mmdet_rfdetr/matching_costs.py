"""Costs of pairing every query with every object of its image.

Objects lie along the rows of a cost matrix and queries along its columns: an
operation then runs over thousands of neighbouring numbers, where the other order
would leave it a handful of objects at a time. All arithmetic happens in place on
planes of that shape; nothing of shape (..., 4) is made.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import EPS
from .precision import float32_island

CPU_BLOCK = 2**17
"""Entries of a cost matrix that a CPU works on at once, to stay in its cache."""


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
    objects = BoxPlanes.of(boxes.transpose(1, 2)[..., None])
    # Sizes below zero count as zero from here on, but for their L1 distance.
    base = ours[:, 2:].clamp(max=0).sum(1).mul_(-bbox_weight)
    costs = _class_costs(cls_scores.float(), labels, base, cls_weight, alpha)
    images, count, rows = costs.shape
    step = count
    if costs.device.type == 'cpu':
        step = max(1, CPU_BLOCK // max(1, images * rows))
    for some in (slice(i, i + step) for i in range(0, count, step)):
        _add_box_costs(
            costs[:, some], queries, objects.some(some), bbox_weight, iou_weight
        )
    return costs


def _class_costs(
    logits: Tensor, labels: Tensor, base: Tensor, weight: float, alpha: float
) -> Tensor:
    """Focal costs (B, n, R) of labels (B, n), on top of ``base`` (B, 1, R).

    Objects of the same class share their costs when there are more objects than
    classes.
    """
    rows, classes = logits.shape[1:]
    if labels.shape[1] <= classes:
        logits = logits.gather(2, labels[:, None].expand(-1, rows, -1))
        return focal_costs(logits.transpose(1, 2), base, weight, alpha)
    image = torch.arange(len(labels), device=labels.device)[:, None]
    return focal_costs(logits.transpose(1, 2), base, weight, alpha)[image, labels]


def focal_costs(logits: Tensor, base: Tensor, weight: float, alpha: float) -> Tensor:
    r"""Cost of giving a class to a query, by its logit.

    .. math::
        \alpha (1 - p)^2 (-\log p) - (1 - \alpha) p^2 (-\log(1 - p))

    Args:
        logits: any shape.
        base: what to add the result to, for broadcasting.
        weight: factor of the result.
        alpha: balance.

    Returns:
        A new contiguous tensor.
    """
    logits = logits.contiguous()
    probability = logits.sigmoid()
    # -log(1 - p) is softplus(z), and -log p is softplus(z) - z.
    negative = F.softplus(logits)
    miss = (1 - probability).square_()
    costs = torch.addcmul(base, miss, negative - logits, value=weight * alpha)
    return costs.addcmul_(probability.square_(), negative, value=-weight * (1 - alpha))


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

    def some(self, part: slice) -> 'BoxPlanes':
        """Take a part of the boxes (B, ..., n, 1), along n."""
        return BoxPlanes(*(numbers[..., part, :] for numbers in self))


def _add_box_costs(
    costs: Tensor,
    ours: BoxPlanes,
    theirs: BoxPlanes,
    bbox_weight: float,
    iou_weight: float,
) -> None:
    """Add L1 and GIoU costs to (B, n, R), of planes (B, 1, R) and (B, n, 1).

    Both come from two distances along each axis: of the centres, and of the halves of
    the sides. The boxes overlap by the sum of the halves less the larger distance
    (which is negative where there is a gap), and span the sum plus that distance.
    """
    overlaps, spans = [], []
    for axis in (0, 1):
        apart = (ours.centre[:, axis] - theirs.centre[:, axis]).abs_()
        unlike = (ours.half[:, axis] - theirs.half[:, axis]).abs_()
        costs.add_(apart, alpha=bbox_weight).add_(unlike, alpha=2 * bbox_weight)
        apart = torch.maximum(apart, unlike, out=apart)
        reach = torch.add(ours.half[:, axis], theirs.half[:, axis], out=unlike)
        spans.append(reach + apart)
        overlaps.append(reach.sub_(apart).clamp_(min=0))
    hull = spans[0].mul_(spans[1])
    intersection = overlaps[0].mul_(overlaps[1])
    union = (ours.area + theirs.area).sub_(intersection)
    # GIoU is intersection / union - (hull - union) / hull.
    costs.addcdiv_(intersection, union.clamp(min=EPS), value=-iou_weight)
    costs.addcdiv_(union.sub_(hull), hull.clamp_(min=EPS), value=-iou_weight)
