"""The short table of what did not fit when a checkpoint was loaded."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmengine.logging import print_log


@dataclass(frozen=True)
class Reshaped:
    """An entry that was fitted to the model's size."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    how: str


@dataclass
class LoadReport:
    """What was done to a checkpoint, and what it lacks or has too much of.

    Args:
        title: What was loaded, e.g. ``'Official RF-DETR checkpoint'``.
        total: Number of entries of the checkpoint.
    """

    title: str
    total: int
    reshaped: list[Reshaped] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The table: a headline, and a line for each entry that did not fit.

        Entries that differ in one number of their name only share a line.
        """
        rows = [
            ('reshaped', name, f'{_show(before)} -> {_show(after)}', how)
            for (before, after, how), names in _group(self.reshaped).items()
            for name in join_names(names)
        ]
        for kind, names in (('missing', self.missing), ('unexpected', self.unexpected)):
            rows += [(kind, name, '', '') for name in join_names(names)]
        counts = (
            f'{len(entries)} {kind}'
            for kind, entries in (
                ('reshaped', self.reshaped),
                ('missing', self.missing),
                ('unexpected', self.unexpected),
            )
            if entries
        )
        summary = ', '.join(counts) or 'all fit'
        lines = [f'{self.title}, {self.total} entries: {summary}']
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append('  ' + '  '.join(cells).rstrip())
        return '\n'.join(lines)

    def log(self) -> None:
        """Print the table through mmengine's logger.

        It is a warning if weights stay at their initial values or are not used.
        """
        incomplete = self.missing or self.unexpected
        level = logging.WARNING if incomplete else logging.INFO
        print_log(str(self), logger='current', level=level)


def join_names(names: Sequence[str]) -> list[str]:
    """Write names that differ in one number as one name.

    Args:
        names: For example ``['layers.2.bias', 'layers.3.bias', 'norm.bias']``.

    Returns:
        For example ``['layers.{2-3}.bias', 'norm.bias']``.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r'\b\d+\b', '#', name), []).append(name)
    joined = []
    for template, members in alike.items():
        numbers = [re.findall(r'\b\d+\b', name) for name in members]
        columns = [sorted(set(map(int, c))) for c in zip(*numbers, strict=True)]
        if sum(len(column) > 1 for column in columns) > 1:
            joined += members
            continue
        for column in columns:
            template = template.replace('#', _ranges(column), 1)
        joined.append(template)
    return joined


def _ranges(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = (str(run[0]) if len(run) == 1 else f'{run[0]}-{run[-1]}' for run in runs)
    return '{' + ','.join(texts) + '}'


def _group(reshaped: Sequence[Reshaped]) -> dict[tuple, list[str]]:
    groups: dict[tuple, list[str]] = {}
    for entry in reshaped:
        key = (entry.before, entry.after, entry.how)
        groups.setdefault(key, []).append(entry.name)
    return groups


def _show(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape))
