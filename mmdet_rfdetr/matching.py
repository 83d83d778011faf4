"""Hungarian matching of all images, decoder stages and groups in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .boxes import EPS, cxcywh_to_xyxy
from .masks import (
    MaskFeatures,
    PointSource,
    TargetMasks,
    drawing_order,
    random_points,
)
from .precision import float32_island


@dataclass(frozen=True)
class Targets:
    """Objects of a batch, one after the other, image by image.

    Attributes:
        labels: (T,) int64 in [0, K).
        boxes: (T, 4) cxcywh normalised to the image.
        counts: number of objects of each image; they sum to T.
        masks: their masks, for instance segmentation.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    masks: TargetMasks | None = None


@dataclass(frozen=True)
class Matches:
    """Which query predicts which object, for all stages of a network at once.

    A stage is a decoder layer or the encoder. The queries of all stages are
    laid out along one axis of R rows, stage after stage. The pairs are ordered by
    stage, then image, then group, then query.

    Attributes:
        stages: (pairs,) stage of each pair.
        images: (pairs,) image of each pair.
        rows: (pairs,) matched row of R.
        targets: (pairs,) matched object of T.
        stage_sizes: queries N of each stage; they sum to R.
        pair_counts: pairs of each image, for each stage.
    """

    stages: Tensor
    images: Tensor
    rows: Tensor
    targets: Tensor
    stage_sizes: tuple[int, ...]
    pair_counts: tuple[tuple[int, ...], ...]

    def sum_by_stage(self, values: Tensor) -> Tensor:
        """Sum the values of the pairs (pairs,) of each stage: (stages,)."""
        sums = values.new_zeros(len(self.stage_sizes))
        return sums.index_add(0, self.stages, values)

    def of_stage(self, stage: int) -> tuple[Tensor, Tensor]:
        """Pairs of a stage: queries (n,) in [0, N) and objects (n,) in [0, T)."""
        start = sum(map(sum, self.pair_counts[:stage]))
        pairs = slice(start, start + sum(self.pair_counts[stage]))
        first = sum(self.stage_sizes[:stage])
        return self.rows[pairs] - first, self.targets[pairs]


@TASK_UTILS.register_module()
class RFDETRHungarianAssigner:
    """Match each object to one query of every group, at the lowest total cost.

    The cost of a pair is ``cls_weight`` times a focal classification cost, plus
    ``bbox_weight`` times the L1 distance of the normalised boxes, minus
    ``iou_weight`` times their GIoU. For instance segmentation come ``mask_weight``
    times the cross-entropy and ``dice_weight`` times the dice loss of the masks at
    random points, which all pairs of a stage share. All costs of a batch are
    computed together in float32 and brought to the host in one transfer.

    Args:
        cls_weight: weight of the classification cost.
        bbox_weight: weight of the L1 cost.
        iou_weight: weight of the GIoU cost.
        alpha: balance of the focal cost.
        mask_weight: weight of the cross-entropy of the masks.
        dice_weight: weight of the dice loss of the masks.
        point_ratio: cells of the predicted mask for each random point.
        points: source of the random points, called for each stage with the name
            ``matcher/<stage>`` and the shape (1, P, 2).

    Attributes:
        had_non_finite_costs: whether a cost was not finite; it stays so until somebody
            who has seen it sets it back.
    """

    def __init__(
        self,
        *,
        cls_weight: float = 2.0,
        bbox_weight: float = 5.0,
        iou_weight: float = 2.0,
        alpha: float = 0.25,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        point_ratio: int = 16,
        points: PointSource = random_points,
    ) -> None:
        self.cls_weight = cls_weight
        self.bbox_weight = bbox_weight
        self.iou_weight = iou_weight
        self.alpha = alpha
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.point_ratio = point_ratio
        self.points = points
        self.had_non_finite_costs = False
        self._warned = set()

    @torch.no_grad()
    def assign(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        stage_sizes: Sequence[int],
        targets: Targets,
        num_groups: int,
        mask_preds: Sequence[MaskFeatures] | None = None,
    ) -> Matches:
        """Match.

        Args:
            cls_scores: (B, R, K) raw logits, stage after stage along R.
            bbox_preds: (B, R, 4) cxcywh.
            stage_sizes: queries of each stage; each divides by ``num_groups``.
            targets: the objects of the B images.
            num_groups: G; every object is matched once in each group of a stage.
            mask_preds: masks of each stage, to be compared with those of the
                targets.

        Returns:
            The pairs, ``min(queries of a group, objects)`` for each image, group
            and stage.
        """
        costs = self._costs(cls_scores, bbox_preds, targets)
        if mask_preds is not None:
            self._add_mask_costs(costs, mask_preds, targets)
        costs = costs.cpu().numpy()
        offsets = np.cumsum([0, *targets.counts])
        pairs = []
        start = 0
        for stage, size in enumerate(stage_sizes):
            queries = size // num_groups
            block = costs[:, start : start + size]
            block = self._replace_non_finite(block, targets.counts)
            for image, count in enumerate(targets.counts):
                if not count:
                    continue
                self._warn_if_crowded(count, queries)
                for group in range(num_groups):
                    first = group * queries
                    chosen, matched = linear_sum_assignment(
                        block[image, first : first + queries, :count]
                    )
                    pair = np.empty((4, len(chosen)), dtype=np.int64)
                    pair[0], pair[1] = stage, image
                    pair[2] = chosen + start + first
                    pair[3] = matched + offsets[image]
                    pairs.append(pair)
            start += size
        joined = np.concatenate([np.empty((4, 0), np.int64), *pairs], axis=1)
        index = torch.from_numpy(joined).to(cls_scores.device)
        return Matches(
            *index.unbind(),
            stage_sizes=tuple(stage_sizes),
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in targets.counts)
                for size in stage_sizes
            ),
        )

    @float32_island()
    def _costs(
        self, cls_scores: Tensor, bbox_preds: Tensor, targets: Targets
    ) -> Tensor:
        """Costs (B, R, objects of the fullest image), arbitrary in the padding."""
        labels = pad_images(targets.labels, targets.counts)
        boxes = pad_images(targets.boxes, targets.counts)

        logits = cls_scores.float().gather(
            2, labels[:, None].expand(-1, cls_scores.shape[1], -1)
        )
        probability = logits.sigmoid()
        negative = F.softplus(logits)
        cost = self.alpha * (1 - probability).square_() * (negative - logits)
        cost -= (1 - self.alpha) * probability.square_() * negative
        cost *= self.cls_weight

        bbox_preds = bbox_preds.float()
        ours = bbox_preds[..., None].unbind(2)
        theirs = boxes[:, None].unbind(3)
        for our, their in zip(ours, theirs, strict=True):
            cost += self.bbox_weight * (our - their).abs_()

        left, top, right, bottom = cxcywh_to_xyxy(bbox_preds)[..., None].unbind(2)
        x1, y1, x2, y2 = cxcywh_to_xyxy(boxes)[:, None].unbind(3)
        width = torch.minimum(right, x2).sub_(torch.maximum(left, x1)).clamp_(min=0)
        height = torch.minimum(bottom, y2).sub_(torch.maximum(top, y1)).clamp_(min=0)
        intersection = width.mul_(height)
        union = (right - left) * (bottom - top) + (x2 - x1) * (y2 - y1) - intersection
        width = torch.maximum(right, x2).sub_(torch.minimum(left, x1))
        height = torch.maximum(bottom, y2).sub_(torch.minimum(top, y1))
        hull = width.mul_(height)
        giou = intersection.div_(union.clamp(min=EPS))
        giou -= (hull - union).div_(hull.clamp(min=EPS))
        return cost.sub_(giou, alpha=self.iou_weight)

    @float32_island()
    def _add_mask_costs(
        self, costs: Tensor, mask_preds: Sequence[MaskFeatures], targets: Targets
    ) -> None:
        """Add the costs of the masks to ``costs``, stage by stage."""
        sizes = [masks.query_features.shape[1] for masks in mask_preds]
        blocks = costs.split(sizes, dim=1)
        everyone = torch.arange(sum(targets.counts), device=costs.device)
        for stage, name in drawing_order(len(mask_preds)):
            height, width = mask_preds[stage].spatial_features.shape[2:]
            count = height * width // self.point_ratio
            points = self.points(f'matcher/{name}', (1, count, 2), costs.device)
            true = targets.masks.sample(points, everyone)
            true = pad_images(true, targets.counts).transpose(1, 2)
            logits = mask_preds[stage].at_points(points)

            # The cross-entropy is softplus(x) - x * y.
            entropy = F.softplus(logits).sum(2, keepdim=True) - logits @ true
            blocks[stage].add_(entropy, alpha=self.mask_weight / count)
            probability = logits.sigmoid_()
            overlap = probability @ true
            total = probability.sum(2, keepdim=True) + true.sum(1, keepdim=True)
            dice = 1 - (2 * overlap + 1) / (total + 1)
            blocks[stage].add_(dice, alpha=self.dice_weight)

    def _replace_non_finite(
        self, costs: np.ndarray, counts: Sequence[int]
    ) -> np.ndarray:
        """Make the solver avoid pairs without a finite cost, as upstream does.

        Args:
            costs: (B, N, padded T) of one stage.
            counts: number of objects of each image.

        Returns:
            ``costs`` if the used part is finite, else a repaired copy.
        """
        used = np.arange(costs.shape[2]) < np.asarray(counts)[:, None]
        used = np.broadcast_to(used[:, None], costs.shape)
        finite = np.isfinite(costs)
        if finite[used].all():
            return costs
        self.had_non_finite_costs = True
        self._warn_once(
            'matching costs are not finite; the network has diverged or its input '
            'is broken: look at the loss terms and at the images of this step'
        )
        known = costs[finite & used]
        replacement = np.finfo(costs.dtype).max
        if known.size:
            with np.errstate(over='ignore'):
                worst = known.max() + np.abs(known).max() + 1
            replacement = worst if np.isfinite(worst) else replacement
        return np.where(finite, costs, replacement)

    def _warn_if_crowded(self, count: int, queries: int) -> None:
        if count > queries:
            self._warn_once(
                f'an image has {count} objects and a group has {queries} queries: only '
                f'the {queries} best fitting objects are learned; raise '
                'model.num_queries to learn all of them'
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print_log(message, logger='current', level=30)


def pad_images(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Lay out values that follow each other image by image in one row an image.

    Args:
        values: (T, ...).
        counts: number of values of each image.

    Returns:
        (B, largest count, ...), zero where an image has fewer.
    """
    rows = values.split(list(counts))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
