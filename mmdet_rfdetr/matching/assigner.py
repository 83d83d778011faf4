"""Hungarian matching of all images, decoder stages and groups in one call."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor

from ..errors import SettingError
from ..ops.transfer import download, upload
from ..precision import float32_island
from ..segmentation.point_sampling import (
    MaskFeatures,
    PointSource,
    TargetMasks,
    drawing_order,
    random_points,
)
from ..speed.device_solver import capacity, match_stages
from .costs import pair_costs, replace_non_finite
from .solver import assign_groups

SOLVERS = ('scipy', 'device')


@dataclass(frozen=True)
class Targets:
    """Objects of a batch, one after the other, image by image.

    Attributes:
        labels: (T,) int64 in [0, K).
        boxes: (T, 4) cxcywh normalised to the image.
        counts: number of objects of each image; they sum to T.
        masks: their masks, for instance segmentation.
        valid: (T,) False for objects that are padding, None if there are none.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    masks: TargetMasks | None = None
    valid: Tensor | None = None

    def padded(self, size: int) -> 'Targets':
        """Give every image as many objects, those that are missing after its own."""
        # The padding is one more object.
        index = self._table(size, filler=sum(self.counts))
        index = upload(index.ravel(), self.labels.device)
        return Targets(
            labels=F.pad(self.labels, (0, 1))[index],
            boxes=F.pad(self.boxes, (0, 0, 0, 1), value=0.5)[index],
            counts=(size,) * len(self.counts),
            valid=index < len(self.labels),
        )

    def of_images(self) -> Tensor:
        """Number of objects of each image, without padding: (B,)."""
        if self.valid is None:
            return upload(self.counts, self.labels.device)
        return self.valid.view(len(self.counts), -1).sum(1)

    def padded_index(self, device: torch.device) -> Tensor:
        """Objects of each image (B, largest count); the padding repeats object 0."""
        return upload(self._table(max(self.counts), filler=0), device)

    def _table(self, size: int, filler: int) -> np.ndarray:
        """Objects of each image, one row each, filled up to (B, size)."""
        table = np.full((len(self.counts), size), filler, dtype=np.int64)
        start = 0
        for row, count in zip(table, self.counts, strict=True):
            row[:count] = range(start, start + count)
            start += count
        return table


@dataclass(frozen=True)
class Matches:
    """Which query predicts which object, for all stages of a network at once.

    A stage is a decoder layer or the encoder. The queries of all stages are
    laid out along one axis of R rows, stage after stage. The pairs are ordered by
    stage, then image, then group, then query (by object, if the device matched them).

    Attributes:
        stages: (pairs,) stage of each pair.
        images: (pairs,) image of each pair.
        rows: (pairs,) matched row of R.
        targets: (pairs,) matched object of T.
        stage_sizes: queries N of each stage; they sum to R.
        pair_counts: pairs of each image, for each stage.
        valid: (pairs,) False where the object is padding, None if none is. The query
            of such a pair has no other.
    """

    stages: Tensor
    images: Tensor
    rows: Tensor
    targets: Tensor
    stage_sizes: tuple[int, ...]
    pair_counts: tuple[tuple[int, ...], ...]
    valid: Tensor | None = None

    def sum_by_stage(self, values: Tensor) -> Tensor:
        """Sum the values of the pairs (pairs,) of each stage: (stages,)."""
        sums = values.new_zeros(len(self.stage_sizes))
        return sums.index_add(0, self.stages, self.without_padding(values))

    def sum_rows(self, values: Tensor) -> Tensor:
        """Sum (B, R, K) over images, queries and classes of each stage: (stages,)."""
        rows = values.sum((0, 2))
        return torch.stack([part.sum() for part in rows.split(self.stage_sizes)])

    def without_padding(self, values: Tensor) -> Tensor:
        """Values of the pairs (pairs,), 0 where the object is padding."""
        return values if self.valid is None else values.masked_fill(~self.valid, 0)

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
        solver: ``'scipy'``, or ``'device'`` to find the pairs where the costs are: on
            a GPU by torch-linear-assignment, without a read by the host. The pairs are
            the same. Masks, and images with more objects than a group has queries, are
            left to SciPy.

    Raises:
        SettingError: if the solver is unknown.
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
        solver: str = 'scipy',
    ) -> None:
        if solver not in SOLVERS:
            raise SettingError(
                f'model.train_cfg.assigner.solver={solver!r}: choose one of {SOLVERS}'
            )
        self.cls_weight = cls_weight
        self.bbox_weight = bbox_weight
        self.iou_weight = iou_weight
        self.alpha = alpha
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.point_ratio = point_ratio
        self.points = points
        self.solver = solver
        self._accident: Tensor | None = None
        self._warned = set()

    def take_accident(self) -> Tensor | bool:
        """Whether a cost was not finite since this was asked last.

        A tensor on the device of the costs, which the host need not read yet.
        """
        if self._accident is None:
            return False
        accident = self._accident.clone()
        self._accident.zero_()
        return accident

    def prepare(self, targets: Targets, queries: int) -> Targets:
        """Pad the objects if the device is to match them.

        Args:
            targets: of a batch.
            queries: fewest queries of a group in any stage.
        """
        if (
            self.solver == 'scipy'
            or targets.masks is not None
            or targets.valid is not None
        ):
            return targets
        size = capacity(targets.counts, queries)
        return targets if size is None else targets.padded(size)

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
        if targets.valid is None:
            objects = targets.padded_index(cls_scores.device)
        else:
            objects = torch.arange(len(targets.labels), device=cls_scores.device)
            objects = objects.view(len(targets.counts), -1)
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
        if targets.valid is not None:
            return self._match_on_device(costs, stage_sizes, targets, num_groups)
        if mask_preds is not None:
            self._add_mask_costs(costs, mask_preds, targets, objects)
        host = self._bring_to_host(costs, stage_sizes, targets.counts)
        pairs = self._solve(host, stage_sizes, targets.counts, num_groups)
        index = upload(pairs, cls_scores.device)
        return Matches(
            *index.unbind(),
            stage_sizes=tuple(stage_sizes),
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in targets.counts)
                for size in stage_sizes
            ),
        )

    def _match_on_device(
        self,
        costs: Tensor,
        stage_sizes: Sequence[int],
        targets: Targets,
        num_groups: int,
    ) -> Matches:
        """Pairs of padded targets, all of them, from costs (B, n, R)."""
        images, count, _ = costs.shape
        valid = targets.valid.view(images, count)
        numbers = functools.partial(torch.arange, device=costs.device)
        parts, first = [], 0
        # Stages of the same size are one call, and mostly all are.
        for size, same in itertools.groupby(stage_sizes):
            stages, queries = len(list(same)), size // num_groups
            end = first + stages * size
            block = costs[..., first:end].unflatten(2, (stages, num_groups, queries))
            found, bad = match_stages(block, valid)
            self._note_accident(bad)
            of_groups = numbers(first, end, queries).view(stages, 1, num_groups, 1)
            parts.append(found + of_groups)
            first = end
        rows = torch.cat(parts)

        def of_pairs(values: Tensor, *shape: int) -> Tensor:
            return values.view(shape).expand_as(rows).flatten()

        return Matches(
            stages=of_pairs(numbers(len(rows)), -1, 1, 1, 1),
            images=of_pairs(numbers(images), -1, 1, 1),
            rows=rows.flatten(),
            targets=of_pairs(numbers(images * count), images, 1, count),
            stage_sizes=tuple(stage_sizes),
            pair_counts=((num_groups * count,) * images,) * len(stage_sizes),
            valid=of_pairs(valid, images, 1, count),
        )

    def _note_accident(self, bad: Tensor) -> None:
        if self._accident is None:
            # From then on it stays where it is, because CUDA graphs write to it.
            with torch.inference_mode(False):
                self._accident = torch.zeros_like(bad)
        self._accident.logical_or_(bad)

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
        offsets = np.cumsum([0, *counts])
        places, problems = [], []
        start = 0
        for stage, size in enumerate(stage_sizes):
            queries = size // num_groups
            block = costs[..., start : start + size]
            for image, count in enumerate(counts):
                if not count:
                    continue
                self._warn_if_crowded(count, queries, stage_sizes[0] // num_groups)
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

    def _bring_to_host(
        self, costs: Tensor, stage_sizes: Sequence[int], counts: Sequence[int]
    ) -> np.ndarray:
        """Costs (B, n, R), finite for the objects of each image."""
        host = download(costs).numpy()
        # Cheaper than looking at every number, and enough as a rule.
        if np.isfinite(host.sum()):
            return host
        used = torch.arange(host.shape[1]) < torch.tensor(counts)[:, None]
        stages = []
        for stage in torch.from_numpy(host).split(stage_sizes, dim=2):
            repaired, bad = replace_non_finite(stage[:, :, None], used)
            stages.append(repaired[:, :, 0])
            if bad:
                self._note_accident(bad.to(costs.device))
                self._warn_once(
                    'matching costs are not finite; the network has diverged or its '
                    'input is broken: look at the loss terms and at the images of '
                    'this step'
                )
        return torch.cat(stages, dim=2).numpy()

    def _warn_if_crowded(self, count: int, queries: int, num_queries: int) -> None:
        if count <= queries:
            return
        limit = f'a group has {queries} queries', 'model.num_queries'
        if queries < num_queries:
            limit = f'the feature maps have {queries} tokens', 'image_size'
        self._warn_once(
            f'an image has {count} objects and {limit[0]}: only the {queries} best '
            f'fitting objects are learned; raise {limit[1]} to learn all of them'
        )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print_log(message, logger='current', level=30)
