"""What is told of many measurements."""

from collections.abc import Sequence

import numpy as np


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median (``p50``) and 95 % quantile (``p95``) of one phase, in milliseconds."""
    p50, p95 = np.quantile(values, (0.5, 0.95)).tolist()
    return dict(p50=p50, p95=p95, samples=len(values))


def speedup(
    base: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> dict[str, float]:
    """How many times faster ``other`` is, round by round.

    Args:
        base: milliseconds of each round's samples.
        other: the same of the other side, in the same rounds.

    Returns:
        Median of the rounds' ratios and their 25 to 75 % range.
    """
    ratios = [
        np.median(slow) / np.median(fast)
        for slow, fast in zip(base, other, strict=True)
    ]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return dict(median=median, p25=low, p75=high, rounds=len(ratios))
