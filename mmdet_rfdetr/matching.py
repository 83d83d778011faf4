"""Hungarian matching of all images, decoder stages and groups in one call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor

from .masks import (
    MaskFeatures,
    PointSource,
    TargetMasks,
    drawing_order,
    random_points,
)
from .matching_costs import pair_costs
from .matching_solver import assign_groups
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

    def padded_index(self, device: torch.device) -> Tensor:
        """Objects of each image (B, largest count); the padding repeats object 0."""
        index = np.zeros((len(self.counts), max(self.counts)), dtype=np.int64)
        start = 0
        for row, count in zip(index, self.counts, strict=True):
            row[:count] = range(start, start + count)
            start += count
        return torch.from_numpy(index).to(device)


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
        objects = targets.padded_index(cls_scores.device)
        costs = pair_costs(
            cls_scores,
            bbox_preds,
            targets.labels[objects],
            targets.boxes[objects],
            cls_weight=self.cls_weight,
            bbox_weight=self.bbox_weight,
            iou_weight=self.iou_weight,
            alpha=self.alpha,
        )
        if mask_preds is not None:
            self._add_mask_costs(costs, mask_preds, targets, objects)
        pairs = self._solve(
            costs.cpu().numpy(), stage_sizes, targets.counts, num_groups
        )
        index = torch.from_numpy(pairs).to(cls_scores.device)
        return Matches(
            *index.unbind(),
            stage_sizes=tuple(stage_sizes),
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in targets.counts)
                for size in stage_sizes
            ),
        )

    def _solve(
        self,
        costs: np.ndarray,
        stage_sizes: Sequence[int],
        counts: Sequence[int],
        num_groups: int,
    ) -> np.ndarray:
        """Stage, image, row and object of all pairs, (4, pairs).

        Args:
            costs: (B, objects of the fullest image, R).
            stage_sizes: queries of each stage.
            counts: number of objects of each image.
            num_groups: G.
        """
        # Cheaper than looking at every number, and enough as a rule.
        finite = np.isfinite(costs.sum())
        offsets = np.cumsum([0, *counts])
        places, problems = [], []
        start = 0
        for stage, size in enumerate(stage_sizes):
            queries = size // num_groups
            block = costs[..., start : start + size]
            if not finite:
                block = self._replace_non_finite(block, counts)
            for image, count in enumerate(counts):
                if not count:
                    continue
                self._warn_if_crowded(count, queries)
                problems.append(block[image, :count].reshape(count, -1, queries))
                first = np.arange(start, start + size, queries)[:, None]
                places.append((stage, image, first, offsets[image]))
            start += size
        pairs = [np.empty((4, 0), np.int64)]
        for place, solution in zip(places, assign_groups(problems), strict=True):
            some = np.empty((4, *solution[0].shape), np.int64)
            for row, value in zip(some, place, strict=True):
                row[...] = value
            some[2:] += solution
            pairs.append(some.reshape(4, -1))
        return np.concatenate(pairs, axis=1)

    @float32_island()
    def _add_mask_costs(
        self,
        costs: Tensor,
        mask_preds: Sequence[MaskFeatures],
        targets: Targets,
        objects: Tensor,
    ) -> None:
        """Add the costs of the masks to ``costs`` (B, n, R), stage by stage.

        ``objects`` (B, n) tells which object each row of the costs belongs to.
        """
        sizes = [masks.query_features.shape[1] for masks in mask_preds]
        blocks = costs.split(sizes, dim=2)
        everyone = torch.arange(sum(targets.counts), device=costs.device)
        for stage, name in drawing_order(len(mask_preds)):
            height, width = mask_preds[stage].spatial_features.shape[2:]
            count = height * width // self.point_ratio
            points = self.points(f'matcher/{name}', (1, count, 2), costs.device)
            true = targets.masks.sample(points, everyone)
            true = true[objects]
            logits = mask_preds[stage].at_points(points).transpose(1, 2)

            # The cross-entropy is softplus(x) - x * y.
            entropy = F.softplus(logits).sum(1, keepdim=True) - true @ logits
            blocks[stage].add_(entropy, alpha=self.mask_weight / count)
            probability = logits.sigmoid_()
            overlap = true @ probability
            total = true.sum(2, keepdim=True) + probability.sum(1, keepdim=True)
            dice = 1 - (2 * overlap + 1) / (total + 1)
            blocks[stage].add_(dice, alpha=self.dice_weight)

    def _replace_non_finite(
        self, costs: np.ndarray, counts: Sequence[int]
    ) -> np.ndarray:
        """Make the solver avoid pairs without a finite cost, as upstream does.

        Args:
            costs: (B, objects of the fullest image, N) of one stage.
            counts: number of objects of each image.

        Returns:
            ``costs`` if the used part is finite, else a repaired copy.
        """
        used = np.arange(costs.shape[1]) < np.asarray(counts)[:, None]
        used = np.broadcast_to(used[..., None], costs.shape)
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
