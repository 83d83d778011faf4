"""Cheapest assignments of objects to queries, by SciPy."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.logging import print_log
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..ops.transfer import download, upload
from .costs import replace_non_finite
from .stages import Matches, Targets


class ScipySolver:
    """Brings all costs to the host in one transfer, and finds the pairs there."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def prepare(self, targets: Targets, queries: int) -> Targets:
        """Bring the objects of a batch into the form in which they are matched.

        Args:
            targets: of a batch.
            queries: fewest queries of a group in any stage.
        """
        return targets

    def match(
        self,
        costs: Tensor,
        stage_sizes: Sequence[int],
        num_groups: int,
        targets: Targets,
    ) -> Matches:
        """Find the cheapest pairs of each stage, image and group.

        Args:
            costs: (B, objects of the fullest image, R).
            stage_sizes: queries of each stage.
            num_groups: G.
            targets: the objects.
        """
        counts = targets.counts
        self._warn_if_crowded(max(counts), stage_sizes, num_groups)
        host, non_finite = self._bring_to_host(costs, stage_sizes, counts)
        offsets = np.cumsum((0, *counts))
        problems, units, first = [], [], 0
        for stage, size in enumerate(stage_sizes):
            groups = np.arange(first, first + size, size // num_groups)[:, None]
            for image, count in enumerate(counts):
                if count:
                    block = host[image, :count, first : first + size]
                    problems.append(block.reshape(count, num_groups, -1))
                    units.append((stage, image, groups, offsets[image]))
            first += size
        pairs = [np.empty((4, 0), np.int64)]
        solutions = self.solve(problems)
        for unit, (queries, objects) in zip(units, solutions, strict=True):
            stage, image, groups, offset = unit
            columns = stage, image, groups + queries, offset + objects
            pairs.append(np.reshape(np.broadcast_arrays(*columns), (4, -1)))
        index = upload(np.concatenate(pairs, axis=1), costs.device)
        return Matches(
            *index.unbind(),
            stage_sizes=tuple(stage_sizes),
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in counts)
                for size in stage_sizes
            ),
            non_finite=non_finite,
        )

    def solve(
        self, problems: Sequence[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Solve all groups of all problems.

        Args:
            problems: costs (objects, groups, queries) each, all finite.

        Returns:
            For each problem queries and objects, both (groups, pairs), the queries of
            each group in ascending order. There are as many pairs as queries or
            objects, whichever are fewer.
        """
        solutions = []
        for costs in problems:
            groups = [linear_sum_assignment(group.T) for group in costs.swapaxes(0, 1)]
            queries, objects = np.stack(groups, axis=1)
            solutions.append((queries, objects))
        return solutions

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

    def _warn_if_crowded(
        self, count: int, stage_sizes: Sequence[int], num_groups: int
    ) -> None:
        queries = min(stage_sizes) // num_groups
        if count <= queries:
            return
        limit = f'a group has {queries} queries', 'model.num_queries'
        if min(stage_sizes) < stage_sizes[0]:
            limit = f'the feature maps have {queries} tokens', 'image_size'
        self._warn_once(
            f'an image has {count} objects and {limit[0]}: only the {queries} best '
            f'fitting objects are learned; raise {limit[1]} to learn all of them'
        )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            print_log(message, logger='current', level=30)


SOLVERS: dict[str, type[ScipySolver]] = {'scipy': ScipySolver}
"""What finds the pairs, by the name that a config has for it."""
