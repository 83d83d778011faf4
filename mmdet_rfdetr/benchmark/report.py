"""What was measured, as a table, as JSON and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def table(results: Sequence[dict]) -> str:
    """Make a Markdown table and its legend: a row a side, a column a phase.

    Args:
        results: see :func:`~mmdet_rfdetr.benchmark.sides.measure`.
    """
    names = list(dict.fromkeys(name for r in results for name in r['phases']))
    header = ['', *[f'{name}, ms' for name in names], 'images/s']
    header += ['memory', 'GFLOP', f'speed against {results[0]["name"]}']
    rows = [header, ['---'] * len(header)]
    for result in results:
        phases, facts = result['phases'], result['facts']
        cells = [_milliseconds(phases.get(name)) for name in names]
        rate = facts.get('images', 1) * 1e3 / phases['total']['p50']
        flops = facts.get('flops')
        rows.append(
            [
                result['name'],
                *cells,
                f'{rate:.3g}' if rate < 100 else f'{rate:.0f}',
                f'{result["memory"] / 1e6:.0f} MB',
                f'{flops / 1e9:.1f}' if flops else '',
                _ratio(result.get('speedup')),
            ]
        )
    legend = 'Times: median / 95 % quantile. Speed: median of the rounds (25 to 75 %).'
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    return '\n'.join([*lines, '', legend])


def write_json(results: Sequence[dict], protocol: dict, path: Path) -> None:
    """Write everything that was measured, and how."""
    content = dict(protocol=protocol, results=list(results))
    path.write_text(json.dumps(content, indent=2) + '\n')


def draw(results: Sequence[dict], title: str) -> Figure:
    """Draw a bar of phases for each side, and where 95 % of its samples end."""
    figure = Figure(figsize=(8, 1.6 + 0.7 * len(results)), layout='constrained')
    axes = figure.subplots()
    names = list(dict.fromkeys(n for r in results for n in r['phases'] if n != 'total'))
    rows = range(len(results))
    ends = [0.0] * len(results)
    for name in names:
        widths = [r['phases'].get(name, {'p50': 0.0})['p50'] for r in results]
        axes.barh(rows, widths, left=ends, label=name)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    tails = [r['phases']['total']['p95'] for r in results]
    axes.plot(tails, rows, 'k|', markersize=14, label='95 % of all')
    axes.set_yticks(rows, [r['name'] for r in results])
    axes.invert_yaxis()
    axes.set_xlabel('milliseconds')
    axes.set_title(title)
    figure.legend(loc='outside lower center', ncols=len(names) + 1, fontsize='small')
    return figure


def _milliseconds(phase: dict | None) -> str:
    return f'{phase["p50"]:.4g} / {phase["p95"]:.4g}' if phase else ''


def _ratio(found: dict | None) -> str:
    return (
        f'{found["median"]:.2f} ({found["p25"]:.2f}-{found["p75"]:.2f})'
        if found
        else '1'
    )
