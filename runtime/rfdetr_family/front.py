"""What a search found, in words and tables."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from .ranking import neighbours
from .results import write_whole

FEW_IMAGES = 100
"""With fewer for validation an order of sub-nets is mostly luck."""
SETTLED = 0.8
"""Kendall's tau of two checkpoints above which the order has settled."""
OFF = 0.1
"""Part by which a predicted latency may be off before it is named."""


def order_warning(tau: float | None, names: tuple[str, str] | None) -> str:
    """What two checkpoints say of the order of the sub-nets.

    Args:
        tau: Kendall's, None if there was one checkpoint only.
        names: of the earlier and the later one.
    """
    if tau is None:
        return (
            'Whether the order of the sub-nets has settled is not known: there is no '
            'earlier checkpoint of the run beside this one; name one with --earlier.'
        )
    text = f"Kendall's tau of {names[0]} and {names[1]} is {tau:.2f}"
    if tau >= SETTLED:
        return f'The order of the sub-nets has settled: {text}.'
    return (
        f'**WARNING: this super-net is still changing its order ({text}, below '
        f'{SETTLED}): train it longer before you choose from this front.**'
    )


def latency_warnings(front: Sequence[dict]) -> list[str]:
    """Sentences on predictions that were off, and how far off all of them are."""
    errors = {
        entry['name']: entry['predicted_ms'] / entry['latency_ms']['median'] - 1
        for entry in front
    }
    if not errors:
        return []
    sizes = sorted(map(abs, errors.values()))
    lines = [
        f'The predicted latencies of the front differ from the measured ones by '
        f'{sizes[len(sizes) // 2]:.1%} (median) and {sizes[-1]:.1%} (most).'
    ]
    lines += [
        f'{name}: the prediction was off by {error:+.1%}.'
        for name, error in errors.items()
        if abs(error) > OFF
    ]
    return lines


def within_budget(front: Sequence[dict], budget: float) -> str:
    """The best of the front that is fast enough, as measured."""
    fast = [each for each in front if each['latency_ms']['median'] <= budget]
    if not fast:
        least = min(front, key=lambda each: each['latency_ms']['median'])
        return (
            f'Nothing of the front takes at most {budget:g} ms; the fastest is '
            f'{least["name"]} with {least["latency_ms"]["median"]:.2f} ms.'
        )
    best = max(fast, key=lambda each: each['bbox_mAP'])
    return (
        f'Best within {budget:g} ms: **{best["name"]}**, '
        f'{best["latency_ms"]["median"]:.2f} ms, mAP {best["bbox_mAP"]:.4f} '
        f'± {best["standard_error"]:.4f}.'
    )


def write_front(folder: Path, found: dict, entries: Mapping[str, dict]) -> None:
    """Write ``pareto.json``, ``pareto.png`` and ``report.md``.

    Args:
        folder: for them.
        found: ``front``, entries with measured ``latency_ms``, ``predicted_ms`` and,
            where there is one, what was found on a hold-out; ``baseline``, an entry or
            None; ``shipped``, entries by the names of their sizes; ``budget`` in ms or
            None; ``holdout``, its ``name`` and ``images``, or None; and facts for the
            report: ``order``, ``images``, ``evaluated``, ``subnets``, ``subset``,
            ``checkpoint``, ``protocol`` and ``machine``.
        entries: by name, of what was evaluated on all images.
    """
    from .figure import pareto_figure

    gains = {name: entry['bbox_mAP'] for name, entry in entries.items()}
    replicates = {name: entry['replicates'] for name, entry in entries.items()}
    for entry in found['front']:
        entry['neighbours'] = neighbours(entry['name'], gains, replicates)
    public = [_public(entry) for entry in found['front']]
    write_whole(folder / 'pareto.json', json.dumps(public, indent=1))
    keys = 'front', 'shipped', 'baseline', 'budget'
    figure = pareto_figure([*entries.values()], **{key: found[key] for key in keys})
    figure.savefig(folder / 'pareto.png')
    write_whole(folder / 'report.md', write_report(found))


def _public(entry: dict) -> dict:
    return {key: value for key, value in entry.items() if key != 'replicates'}


def write_report(found: dict) -> str:
    """Make ``report.md``.

    Args:
        found: see :func:`write_front`.
    """
    front, images = found['front'], found['images']
    lines = ['# The front of a super-net', '', found['order'], '']
    if found['budget'] is not None:
        lines += [within_budget(front, found['budget']), '']
    lines += _front_table(front, found['baseline'])
    lines += [
        '',
        'Errors are of one standard error: a jackknife over groups of images.',
    ]
    lines += [
        'Neighbours are sub-nets, of the front or not, whose mAP is within one '
        'standard error of the paired difference.',
        '',
        *latency_warnings(front),
        '',
        '## How it was found',
        '',
        f'- {found["evaluated"]} sub-nets of {found["subnets"]} were evaluated on all '
        f'{images} validation images{found["subset"]}.',
        f'- Checkpoint: `{found["checkpoint"]}`.',
        f'- Latency: {found["protocol"]} Those of other sub-nets than the front are '
        'predicted as trunk + layers x layer + head.',
        f'- Machine: {found["machine"]}.',
        '',
        '## Data that the search did not see',
        '',
    ]
    if images < FEW_IMAGES:
        lines += [
            f'**{images} validation images are fewer than {FEW_IMAGES}: differences of '
            'sub-nets are mostly luck.**',
            '',
        ]
    if found['holdout'] is None:
        lines += [
            'None was given. The best of many on one validation set looks better than '
            'it is: measure again on other images (`--holdout ANN`).'
        ]
    else:
        drops = [each['bbox_mAP'] - each['holdout_mAP'] for each in front]
        drop = sum(drops) / len(drops)
        lines += [
            f'{found["holdout"]["images"]} images of `{found["holdout"]["name"]}`, '
            'none of them among those of the search. The front, exported and tested on '
            f'them, has {abs(drop):.4f} mAP {"less" if drop > 0 else "more"} than on '
            'the data that chose it.'
        ]
    return '\n'.join(lines) + '\n'


def _front_table(front: Sequence[dict], baseline: dict | None) -> list[str]:
    rows = [
        '| sub-net | mAP | hold-out | ms | spread | predicted | GFLOPs | M params '
        '| neighbours |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for each in (*front, *filter(None, [baseline])):
        latency, near = each['latency_ms'], each.get('neighbours', ())
        found = _with_error(each['bbox_mAP'], each['standard_error'])
        rows.append(
            f'| {each["name"]} | {found} '
            f'| {_with_error(each.get("holdout_mAP"), each.get("holdout_error"))} '
            f'| {latency["median"]:.2f} | {latency["spread"]:.2f} '
            f'| {_number(each.get("predicted_ms"))} | {each["gflops"]:.2f} '
            f'| {each["params"] / 1e6:.2f} | {len(near)} |'
        )
    return rows


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ''
    text = f'{value:.4f}'
    return text if error is None or math.isnan(error) else f'{text} ± {error:.4f}'


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.2f}'
