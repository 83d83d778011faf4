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
    logits = cls_scores.float().transpose(1, 2)
    queries = BoxPlanes.of(bbox_preds.float().transpose(1, 2)[:, :, None].contiguous())
    objects = BoxPlanes.of(boxes.transpose(1, 2)[..., None])
    images, classes, rows = logits.shape
    count = labels.shape[1]
    image = torch.arange(images, device=labels.device)[:, None]
    by_class = None
    if count > classes:
        # Objects of the same class share their costs.
        by_class = focal_costs(logits, cls_weight, alpha)

    def block(labels: Tensor, objects: BoxPlanes) -> Tensor:
        if by_class is None:
            costs = focal_costs(logits[image, labels], cls_weight, alpha)
        else:
            costs = by_class[image, labels]
        return _add_box_costs(costs, queries, objects, bbox_weight, iou_weight)

    step = count
    if labels.device.type == 'cpu':
        step = max(1, CPU_BLOCK // max(1, images * rows))
    if count <= step:
        return block(labels, objects)
    costs = logits.new_empty(images, count, rows)
    for some in (slice(i, i + step) for i in range(0, count, step)):
        costs[:, some] = block(labels[:, some], objects.some(some))
    return costs


def focal_costs(logits: Tensor, weight: float, alpha: float) -> Tensor:
    r"""Cost of giving a class to a query, by its logit.

    .. math::
        \alpha (1 - p)^2 (-\log p) - (1 - \alpha) p^2 (-\log(1 - p))

    Args:
        logits: any shape.
        weight: factor of the result.
        alpha: balance.

    Returns:
        A new contiguous tensor.
    """
    logits = logits.contiguous()
    probability = logits.sigmoid()
    # -log(1 - p) is softplus(z), and -log p is softplus(z) - z.
    negative = F.softplus(logits)
    costs = (1 - probability).square_().mul_(negative - logits).mul_(weight * alpha)
    return costs.addcmul_(probability.square_(), negative, value=-weight * (1 - alpha))


class BoxPlanes(NamedTuple):
    """The numbers of boxes that the box costs need, ready to broadcast.

    Attributes:
        boxes: (B, 4, ...) cxcywh.
        start: (B, 2, ...) x1, y1.
        side: (B, 2, ...) width and height; negative ones count as zero.
        end: (B, 2, ...) x2, y2.
        area: (B, ...).
    """

    boxes: Tensor
    start: Tensor
    side: Tensor
    end: Tensor
    area: Tensor

    @classmethod
    def of(cls, boxes: Tensor) -> 'BoxPlanes':
        """Compute them for boxes (B, 4, ...) cxcywh."""
        side = boxes[:, 2:].clamp(min=0)
        start = torch.sub(boxes[:, :2], side, alpha=0.5)
        return cls(boxes, start, side, start + side, side.prod(1))

    def some(self, part: slice) -> 'BoxPlanes':
        """Take a part of the boxes (B, ..., n, 1), along n."""
        return BoxPlanes(*(numbers[..., part, :] for numbers in self))


def _add_box_costs(
    costs: Tensor,
    ours: BoxPlanes,
    theirs: BoxPlanes,
    bbox_weight: float,
    iou_weight: float,
) -> Tensor:
    """Add L1 and GIoU costs to (B, n, R), of planes (B, 1, R) and (B, n, 1)."""
    for our, their in zip(ours.boxes.unbind(1), theirs.boxes.unbind(1), strict=True):
        costs.add_((our - their).abs_(), alpha=bbox_weight)

    overlaps, spans = [], []
    for axis in (0, 1):
        overlap = torch.minimum(ours.end[:, axis], theirs.end[:, axis])
        overlap -= torch.maximum(ours.start[:, axis], theirs.start[:, axis])
        # What both boxes span is what they measure together less their overlap,
        # which is negative where there is a gap between them.
        spans.append((ours.side[:, axis] + theirs.side[:, axis]).sub_(overlap))
        overlaps.append(overlap.clamp_(min=0))
    hull = spans[0].mul_(spans[1])
    intersection = overlaps[0].mul_(overlaps[1])
    union = (ours.area + theirs.area).sub_(intersection)
    # GIoU is intersection / union - (hull - union) / hull.
    costs.addcdiv_(hull - union, hull.clamp_(min=EPS), value=iou_weight)
    costs.addcdiv_(intersection, union.clamp_(min=EPS), value=-iou_weight)
    return costs
