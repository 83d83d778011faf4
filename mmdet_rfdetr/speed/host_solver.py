"""Matching on the host, sooner than by SciPy alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ..matching.solver import SOLVERS, ScipySolver

THREADED_OBJECTS = 100
"""Objects of an image from which a problem outweighs handing it to another thread."""


class HostSolver(ScipySolver):
    """Solves what has to be, the large problems on PyTorch's number of threads."""

    def solve(
        self, problems: Sequence[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Solve all groups of all problems; pairs and ties are those of SciPy."""
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


SOLVERS['scipy'] = HostSolver
