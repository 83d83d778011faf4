"""Cheapest assignments of objects to queries, with the pairs and ties of SciPy."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from mmengine.logging import print_log
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..ops.transfer import download, upload
from .costs import replace_non_finite
from .stages import Matches, Targets

THREADED_OBJECTS = 100
"""Objects of an image from which a problem outweighs handing it to another thread."""


def assign_groups(
    problems: Sequence[np.ndarray],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Solve all groups of all problems, the large ones on PyTorch's number of threads.

    Args:
        problems: costs (objects, groups, queries) each, all finite.

    Returns:
        For each problem queries and objects, both (groups, pairs), the queries of each
        group in ascending order. There are as many pairs as queries or objects,
        whichever are fewer.
    """
    solutions, hard = [], []
    for costs in problems:
        queries, objects, clashing = _cheapest_queries(costs)
        solutions.append((queries, objects))
        hard += [(costs[:, i], queries[i], objects[i]) for i in clashing]
    threads = torch.get_num_threads()
    if threads == 1 or max(map(len, problems), default=0) < THREADED_OBJECTS:
        for problem in hard:
            _assign(*problem)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_assign, *zip(*hard, strict=True)))
    return solutions


def _cheapest_queries(
    costs: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Sequence[int]]:
    """Give each object the query that is cheapest for it.

    Where all these queries differ, nothing can be cheaper. The solver comes to the
    same pairs then, also if some query costs an object just as much: it goes from
    object to object, and takes the first of the cheapest queries if it is free.

    Args:
        costs: (objects, groups, queries).

    Returns:
        Queries and objects (groups, pairs), and the groups where they are not a
        solution.
    """
    count, groups, size = costs.shape
    if 2 * count > size:  # They would hardly ever differ.
        shape = groups, min(count, size)
        return np.empty(shape, np.int64), np.empty(shape, np.int64), range(groups)
    queries = costs.argmin(2).T
    objects = queries.argsort(1)
    queries = np.take_along_axis(queries, objects, 1)
    clashes = (queries[:, 1:] == queries[:, :-1]).any(1)
    return queries, objects, clashes.nonzero()[0]


def _assign(costs: np.ndarray, queries: np.ndarray, objects: np.ndarray) -> None:
    """Write the pairs of costs (objects, queries) into the two arrays."""
    if costs.shape[0] >= costs.shape[1]:
        queries[:], objects[:] = linear_sum_assignment(costs.T)
        return
    # The solver would turn a matrix with more rows than columns round; ties come
    # out the same.
    rows, columns = linear_sum_assignment(costs)
    order = columns.argsort()
    queries[:], objects[:] = columns[order], rows[order]


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
        host, non_finite = self._bring_to_host(costs, stage_sizes, targets.counts)
        pairs = self._solve(host, stage_sizes, targets.counts, num_groups)
        index = upload(pairs, costs.device)
        return Matches(
            *index.unbind(),
            stage_sizes=tuple(stage_sizes),
            pair_counts=tuple(
                tuple(num_groups * min(size // num_groups, n) for n in targets.counts)
                for size in stage_sizes
            ),
            non_finite=non_finite,
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
        starts, offsets = np.cumsum((0, *stage_sizes)), np.cumsum((0, *counts))
        units = [
            (stage, image, count)
            for stage in range(len(stage_sizes))
            for image, count in enumerate(counts)
            if count
        ]
        problems = [
            costs[image, :count, starts[stage] : starts[stage + 1]].reshape(
                count, num_groups, -1
            )
            for stage, image, count in units
        ]
        self._warn_if_crowded(max(counts), stage_sizes, num_groups)
        pairs = [np.empty((4, 0), np.int64)]
        solutions = assign_groups(problems)
        for (stage, image, _), (queries, objects) in zip(units, solutions, strict=True):
            size = stage_sizes[stage]
            rows = starts[stage] + np.arange(0, size, size // num_groups)[:, None]
            columns = stage, image, rows + queries, offsets[image] + objects
            pairs.append(np.reshape(np.broadcast_arrays(*columns), (4, -1)))
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
