"""What may be said of sub-nets whose accuracy is known from some images only."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np


def standard_error(replicates: Sequence[float]) -> float:
    """The standard error of what was computed without each group of images in turn.

    It is the jackknife's, for groups of equal size; NaN for a single group.
    """
    values = np.asarray(replicates, float)
    count = len(values)
    if count < 2:
        return math.nan
    return float(np.sqrt((count - 1) * np.var(values)))


def paired_error(first: Sequence[float], second: Sequence[float]) -> float:
    """The standard error of a difference of two that saw the same images."""
    return standard_error(np.subtract(first, second))


def front_of(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Indices of what nothing cheaper or as cheap is as good as, by rising cost."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i]))
    front: list[int] = []
    for index in order:
        if not front or gains[index] > gains[front[-1]]:
            front.append(index)
    return front


def may_be_best(
    costs: Sequence[float],
    gains: Sequence[float],
    replicates: Sequence[Sequence[float]],
    errors: float = 2.0,
) -> list[int]:
    """Indices of what could be of the front if all images were looked at.

    Args:
        costs: of each.
        gains: of each, from some images.
        replicates: see :func:`standard_error`, of each.
        errors: standard errors of the paired difference by which it has to be worse
            than something cheaper, or as cheap, to be left out.
    """
    front = front_of(costs, gains)
    return [
        index
        for index in range(len(costs))
        if all(
            gains[better] - gains[index]
            <= errors * paired_error(replicates[better], replicates[index])
            for better in front
            if costs[better] <= costs[index] and better != index
        )
    ]


def neighbours(
    name: str, gains: Mapping[str, float], replicates: Mapping[str, Sequence[float]]
) -> list[str]:
    """Which others differ by at most a standard error of the paired difference.

    Returns:
        Names, the nearest first.
    """
    near = {
        other: abs(gains[other] - gains[name])
        for other in gains
        if other != name
        and abs(gains[other] - gains[name])
        <= paired_error(replicates[other], replicates[name])
    }
    return sorted(near, key=near.get)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """How far two orders agree: 1 the same, -1 reversed; tau-b, NaN without order."""
    pairs = itertools.combinations(range(len(first)), 2)
    signs = np.array(
        [
            (np.sign(first[i] - first[j]), np.sign(second[i] - second[j]))
            for i, j in pairs
        ]
    ).reshape(-1, 2)
    scale = math.sqrt(np.prod((signs != 0).sum(0)))
    return float((signs[:, 0] * signs[:, 1]).sum() / scale) if scale else math.nan
