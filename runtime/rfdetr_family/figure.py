"""Accuracy over latency as a figure."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .ranking import front_of


def pareto_figure(
    entries: Sequence[dict],
    front: Sequence[dict],
    shipped: Mapping[str, dict],
    baseline: dict | None = None,
    budget: float | None = None,
) -> Figure:
    """Draw all sub-nets, and the front with error bars; a line joins what is best.

    Args:
        entries: lines of ``subnets.jsonl``.
        front: those of the front, with what was measured of them.
        shipped: by its name, the entry of a shipped size that is among them.
        baseline: of the home model that was trained alone.
        budget: in milliseconds, a line.
    """
    figure = Figure(figsize=(7, 4.6), layout='constrained', dpi=110)
    axes = figure.subplots()
    others = [each for each in entries if not each['latency_ms']['measured']]
    label = f'{len(others)} sub-nets, latency predicted'
    axes.plot(*_points(others), '.', color='0.75', label=label)
    style = dict(capsize=2, linewidth=1.2)
    errors = [entry['standard_error'] for entry in front]
    options = dict(color='tab:blue', fmt='o', label='front, latency measured')
    axes.errorbar(*_points(front), yerr=errors, **options, **style)
    # Some that were predicted to be of the front may not be, as measured.
    still = [front[place] for place in front_of(*_points(front))]
    axes.plot(*_points(still), color='tab:blue', linewidth=1.2)
    held_out = [entry for entry in front if entry.get('holdout_mAP') is not None]
    if held_out:
        x = [entry['latency_ms']['median'] for entry in held_out]
        y = [entry['holdout_mAP'] for entry in held_out]
        errors = [entry['holdout_error'] for entry in held_out]
        options = dict(color='tab:green', fmt='s', mfc='none', label='front, hold-out')
        axes.errorbar(x, y, yerr=errors, **options, **style)
    for name, entry in shipped.items():
        (x,), (y,) = _points([entry])
        axes.plot(x, y, '*', color='tab:orange', markersize=13)
        axes.annotate(name, (x, y), textcoords='offset points', xytext=(6, -11))
    if baseline is not None:
        (x,), (y,) = _points([baseline])
        options = dict(color='tab:red', fmt='^', label='home, trained alone')
        axes.errorbar([x], [y], yerr=[baseline['standard_error']], **options, **style)
    if budget is not None:
        axes.axvline(budget, color='0.4', linestyle='--', label=f'budget {budget:g} ms')
    axes.set_xlabel('latency [ms], batch 1')
    axes.set_ylabel('box mAP, bars of one standard error')
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    return figure


def _points(entries: Sequence[dict]) -> tuple[list[float], list[float]]:
    """Latencies and accuracies."""
    latencies = [entry['latency_ms']['median'] for entry in entries]
    return latencies, [entry['bbox_mAP'] for entry in entries]
