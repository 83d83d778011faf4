"""The short table of what did not fit when a checkpoint was loaded."""

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mmengine.logging import print_log


class Reshaped(NamedTuple):
    """An entry that was fitted to the model's size, or to its classes."""

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
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The table: a headline, and a line for each entry that did not fit.

        Entries that differ in the first number of their name only share a line. Notes
        follow.
        """
        rows = []
        for name, *shapes, how in self.reshaped:
            kind = 'reordered' if shapes[0] == shapes[1] else 'reshaped'
            change = ' -> '.join('x'.join(map(str, shape)) for shape in shapes)
            rows.append((kind, name, change, how))
        rows += [('missing', name, '', '') for name in self.missing]
        rows += [('unexpected', name, '', '') for name in self.unexpected]
        counts = Counter(kind for kind, *_ in rows)
        summary = ', '.join(f'{count} {kind}' for kind, count in counts.items())
        lines = [f'{self.title}, {self.total} entries: {summary or "all fit"}']
        rows = _join(rows)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append('  ' + '  '.join(cells).rstrip())
        return '\n'.join([*lines, *(f'  {note}' for note in self.notes)])

    def log(self) -> None:
        """Print the table through mmengine's logger.

        It is a warning if weights stay at their initial values or are not used.
        """
        incomplete = self.missing or self.unexpected
        level = logging.WARNING if incomplete else logging.INFO
        print_log(str(self), logger='current', level=level)


def _join(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Write rows that differ in the first number of the name only as one row."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for kind, name, *rest in rows:
        template, _, number = re.sub(r'\b(\d+)\b(.*)', r'#\2\n\1', name).partition('\n')
        alike[(kind, template, *rest)] += [int(number)] if number else []
    joined = []
    for (kind, template, *rest), numbers in alike.items():
        listed = ','.join(map(str, sorted(numbers)))
        shown = f'{{{listed}}}' if len(numbers) > 1 else listed
        joined.append((kind, template.replace('#', shown), *rest))
    return joined
