"""The training curve as a figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def training_curve(
    losses: np.ndarray,
    rates: np.ndarray,
    metrics: Mapping[str, Sequence[tuple[int, float]]],
    smoothing: int = 50,
) -> Figure:
    """Draw loss, learning rate and validation metrics over the iterations.

    Args:
        losses: (n,) total loss of every iteration.
        rates: (n,) learning rate of every iteration.
        metrics: for each name, pairs of iteration and value.
        smoothing: iterations over which the loss is averaged.

    Returns:
        A figure of three panels, one below the other.
    """
    figure = Figure(figsize=(8, 8), layout='constrained')
    loss_axes, metric_axes, rate_axes = figure.subplots(3, 1, sharex=True)
    iterations = np.arange(1, len(losses) + 1)

    loss_axes.plot(iterations, losses, color='tab:blue', alpha=0.25, linewidth=0.8)
    loss_axes.plot(
        iterations,
        running_mean(losses, smoothing),
        color='tab:blue',
        label=f'mean of {smoothing} iterations',
    )
    finite = losses[np.isfinite(losses)]
    if len(finite):
        # The first losses are huge and would flatten the rest.
        loss_axes.set_ylim(0, 1.1 * np.quantile(finite, 0.98))
    loss_axes.set_ylabel('training loss')
    loss_axes.legend(loc='upper right')

    for name, points in metrics.items():
        metric_axes.plot(*zip(*points, strict=True), marker='o', label=name)
    metric_axes.set_ylabel('validation')
    if metrics:
        metric_axes.set_ylim(-0.03, 1.03)  # so that 0 and 1 are seen
        metric_axes.legend(loc='lower right')

    rate_axes.plot(np.arange(1, len(rates) + 1), rates, color='tab:green')
    rate_axes.set_ylabel('learning rate')
    rate_axes.set_ylim(bottom=0)
    rate_axes.set_xlabel('iteration')
    rate_axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss_axes, metric_axes, rate_axes):
        axes.grid(alpha=0.3)
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to ``window - 1`` before it.

    Args:
        values: (n,); those that are not finite are left out.
        window: number of values.

    Returns:
        (n,), NaN where all values of the window are left out.
    """
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    with np.errstate(invalid='ignore'):
        return (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])
