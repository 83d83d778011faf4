"""Hungarian matching of all images, decoder stages and groups in one call."""

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor

from ..errors import SettingError
from ..ops.transfer import download, upload
from ..speed.device_solver import capacity, match_stages
from .costs import pair_costs, replace_non_finite
from .solver import assign_groups
from .stages import Matches, Stages, Targets

SOLVERS = ('scipy', 'device')


@TASK_UTILS.register_module()
class RFDETRHungarianAssigner:
    """Match each object to one query of every group, at the lowest total cost.

    The cost of a pair is ``cls_weight`` times a focal classification cost, plus
    ``bbox_weight`` times the L1 distance of the normalised boxes, minus
    ``iou_weight`` times their GIoU, plus what the task heads of the model add. All
    costs of a batch are computed together in float32 and brought to the host in one
    transfer.

    Args:
        cls_weight: weight of the classification cost.
        bbox_weight: weight of the L1 cost.
        iou_weight: weight of the GIoU cost.
        alpha: balance of the focal cost.
        solver: ``'scipy'``, or ``'device'`` to find the pairs where the costs are: on
            a GPU by torch-linear-assignment, without a read by the host. The pairs are
            the same. Models with task heads, and images with more objects than a group
            has queries, are left to SciPy.

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
        self.solver = solver
        self._warned = set()

    def prepare(self, targets: Targets, queries: int) -> Targets:
        """Pad the objects if the device is to match them.

        Args:
            targets: of a batch.
            queries: fewest queries of a group in any stage.
        """
        if self.solver == 'scipy' or targets.tasks or targets.valid is not None:
            return targets
        size = capacity(targets.counts, queries)
        return targets if size is None else targets.padded(size)

    @torch.no_grad()
    def assign(
        self, stages: Stages, targets: Targets, task_heads: Iterable = ()
    ) -> Matches:
        """Match.

        Args:
            stages: outputs of the network; the size of each stage divides by the
                number of groups, and every object is matched once in each group.
            targets: the objects of the B images.
            task_heads: what else has a cost, see ``TaskHead.add_costs``.

        Returns:
            The pairs, ``min(queries of a group, objects)`` for each image, group
            and stage.
        """
        objects = targets.padded_index()
        costs = pair_costs(
            stages.logits,
            stages.boxes,
            targets.labels[objects],
            targets.boxes[objects],
            cls_weight=self.cls_weight,
            bbox_weight=self.bbox_weight,
            iou_weight=self.iou_weight,
            alpha=self.alpha,
        )
        for head in task_heads:
            head.add_costs(costs, stages, targets, objects)
        sizes, num_groups = stages.sizes, stages.num_groups
        if targets.valid is not None:
            return self._match_on_device(costs, sizes, targets, num_groups)
        host, non_finite = self._bring_to_host(costs, sizes, targets.counts)
        pairs = self._solve(host, sizes, targets.counts, num_groups)
        index = upload(pairs, costs.device)
        return Matches(
            *index.unbind(),
            stage_sizes=sizes,
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in targets.counts)
                for size in sizes
            ),
            non_finite=non_finite,
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
        parts, non_finite, first = [], [], 0
        # Stages of the same size are one call, and mostly all are.
        for size, same in itertools.groupby(stage_sizes):
            stages, queries = len(list(same)), size // num_groups
            end = first + stages * size
            block = costs[..., first:end].unflatten(2, (stages, num_groups, queries))
            found, bad = match_stages(block, valid)
            non_finite.append(bad)
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
            non_finite=torch.stack(non_finite).any(),
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

    def _bring_to_host(
        self, costs: Tensor, stage_sizes: Sequence[int], counts: Sequence[int]
    ) -> tuple[np.ndarray, bool]:
        """Costs (B, n, R), finite for the objects of each image; whether all were."""
        host = download(costs).numpy()
        # Cheaper than looking at every number, and enough as a rule.
        if np.isfinite(host.sum()):
            return host, False
        used = torch.arange(host.shape[1]) < torch.tensor(counts)[:, None]
        stages, non_finite = [], False
        for stage in torch.from_numpy(host).split(stage_sizes, dim=2):
            repaired, bad = replace_non_finite(stage[:, :, None], used)
            stages.append(repaired[:, :, 0])
            non_finite = non_finite or bool(bad)
        if non_finite:
            self._warn_once(
                'matching costs are not finite; the network has diverged or its '
                'input is broken: look at the loss terms and at the images of '
                'this step'
            )
        return torch.cat(stages, dim=2).numpy(), non_finite

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
