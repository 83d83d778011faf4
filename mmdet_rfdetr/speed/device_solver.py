"""Matching where the costs are: the host reads nothing, and waits for nothing."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..errors import MissingPackageError, SettingError
from ..matching.costs import replace_non_finite
from ..matching.solver import SOLVERS, ScipySolver
from ..matching.stages import Matches, Targets
from ..ops.transfer import upload

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


@dataclass(frozen=True)
class PaddedTargets(Targets):
    """As many objects of every image, of which the last may only fill it up.

    Attributes:
        valid: (T,) False for objects that are padding.
    """

    valid: Tensor = field(kw_only=True)

    @classmethod
    def of(cls, targets: Targets, size: int) -> 'PaddedTargets':
        """Fill every image up to ``size`` objects."""
        # The padding is one more object.
        table = targets.table(size, filler=sum(targets.counts))
        index = upload(table.ravel(), targets.labels.device)
        return cls(
            labels=F.pad(targets.labels, (0, 1))[index],
            boxes=F.pad(targets.boxes, (0, 0, 0, 1), value=0.5)[index],
            counts=(size,) * len(targets.counts),
            valid=index < len(targets.labels),
        )

    def total(self) -> Tensor:
        """Number of objects that are no padding."""
        return self.valid.sum().float()

    def of_images(self) -> Tensor:
        """Number of objects of each image that are no padding: (B,)."""
        return self.valid.view(len(self.counts), -1).sum(1)

    def padded_index(self) -> Tensor:
        """Objects of each image (B, size)."""
        objects = torch.arange(len(self.labels), device=self.labels.device)
        return objects.view(len(self.counts), -1)


@dataclass(frozen=True)
class PaddedMatches(Matches):
    """Pairs of padded objects, ordered by stage, image, group and object.

    Attributes:
        valid: (pairs,) False where the object is padding. The query of such a pair has
            no other.
    """

    valid: Tensor = field(kw_only=True)

    def counted(self, values: Tensor) -> Tensor:
        """Values of the pairs (pairs,), 0 where the object is padding."""
        return values.masked_fill(~self.valid, 0)


class DeviceSolver(ScipySolver):
    """Finds the pairs where the costs are, without a read by the host.

    On a GPU by torch-linear-assignment. Models with task heads, and images with more
    objects than a group has queries, are left to SciPy.
    """

    def prepare(self, targets: Targets, queries: int) -> Targets:
        """Fill the images up, so that few sizes occur."""
        if targets.tasks or isinstance(targets, PaddedTargets):
            return targets
        size = capacity(targets.counts, queries)
        return targets if size is None else PaddedTargets.of(targets, size)

    def match(
        self,
        costs: Tensor,
        stage_sizes: Sequence[int],
        num_groups: int,
        targets: Targets,
    ) -> Matches:
        """Find the cheapest pairs of each stage, image and group."""
        if not isinstance(targets, PaddedTargets):
            return super().match(costs, stage_sizes, num_groups, targets)
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

        return PaddedMatches(
            stages=of_pairs(numbers(len(rows)), -1, 1, 1, 1),
            images=of_pairs(numbers(images), -1, 1, 1),
            rows=rows.flatten(),
            targets=of_pairs(numbers(images * count), images, 1, count),
            stage_sizes=tuple(stage_sizes),
            pair_counts=((num_groups * count,) * images,) * len(stage_sizes),
            valid=of_pairs(valid, images, 1, count),
            non_finite=torch.stack(non_finite).any(),
        )


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


SOLVERS['device'] = DeviceSolver
