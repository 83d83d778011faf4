"""Matching where the costs are: the host reads nothing, and waits for nothing."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import MissingPackageError, SettingError
from ..matching.costs import replace_non_finite

SMALLEST_CAPACITY = 32
"""Fewest objects that an image is padded to."""


def capacity(counts: Sequence[int], queries: int) -> int | None:
    """To how many objects all images of a batch are padded, so that few sizes occur.

    Args:
        counts: objects of each image.
        queries: of a group; more objects cannot be matched here.

    Returns:
        A power of two, or ``queries``; None if an image has more objects than that.
    """
    most = max(counts)
    if most > queries:
        return None
    power_of_two = 1 << max(most - 1, 0).bit_length()
    return min(max(power_of_two, SMALLEST_CAPACITY), queries)


def match_stages(costs: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Find the cheapest query for each object of every stage, image and group.

    Objects that are padding come after the others and cost nothing anywhere: they take
    queries that are left over, and change none of the other pairs.

    Args:
        costs: (B, n, S, G, Q) of S stages with G groups of Q queries; n is at most Q.
        valid: (B, n), False for padding.

    Returns:
        Tuple of queries (S, B, G, n) in [0, Q), and whether a cost of an object was not
        finite, a bool tensor without axes. Such a pair is avoided.

    Raises:
        SettingError: if there are more objects than queries.
    """
    count, queries = costs.shape[1], costs.shape[-1]
    if count > queries:
        raise SettingError(
            f'images are padded to {count} objects, and a group has {queries} queries '
            'at this size of the input: match on the host with --cfg-options '
            'model.train_cfg.assigner.solver=scipy'
        )
    costs, bad = replace_non_finite(costs, valid)
    # In float64, in which SciPy works.
    costs = torch.where(valid[:, :, None, None, None], costs, 0).double()
    problems = costs.permute(2, 0, 3, 1, 4).contiguous()
    queries = _solve(problems.flatten(0, 2))
    return queries.view(problems.shape[:-1]), bad


def _solve(problems: Tensor) -> Tensor:
    """Query of each object, (problems, n), of finite costs (problems, n, Q)."""
    if problems.is_cuda:
        return solve_on_gpu(problems)
    found = [linear_sum_assignment(problem)[1] for problem in problems.numpy()]
    return torch.from_numpy(np.stack(found))


def solve_on_gpu(costs: Tensor) -> Tensor:
    """Solve assignment problems by torch-linear-assignment, without waiting for it.

    Its public function reads on the host whether all costs are finite and a solution
    exists, which cannot be recorded in a CUDA graph. Both are certain here, so this
    calls what it calls, without these checks.

    Args:
        costs: (problems, rows, columns) float64 on a GPU, finite, no more rows than
            columns.

    Returns:
        (problems, rows) int64, the column of each row, as SciPy finds it.

    Raises:
        MissingPackageError: it is not installed, or has no solver for this GPU.
    """
    try:
        from torch_linear_assignment import _triton
    except ImportError as error:
        raise MissingPackageError(
            "matching with solver='device' needs torch-linear-assignment and Triton on "
            'a GPU: run pip install "torch-linear-assignment>=0.1.0,<0.2", or match on '
            'the host with --cfg-options model.train_cfg.assigner.solver=scipy'
        ) from error
    return _triton.batch_linear_assignment(costs, validation='off')
