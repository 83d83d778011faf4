"""The short table of what did not fit when a checkpoint was loaded."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from mmengine.logging import print_log

from ..errors import list_names

_MOST_SHOWN = 12  # mmengine prints all that a model misses or does not take


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
        """A headline, a line for each entry that was fitted, and lines for the rest."""
        kinds, lines = [], []
        for name, *shapes, how in self.reshaped:
            kinds.append('reordered' if shapes[0] == shapes[1] else 'reshaped')
            change = ' -> '.join('x'.join(map(str, shape)) for shape in shapes)
            lines.append(f'{kinds[-1]}  {name}  {change}  {how}')
        for kind in ('missing', 'unexpected'):
            if names := getattr(self, kind):
                lines.append(f'{kind}  {list_names(names, _MOST_SHOWN)}')
                kinds += [kind] * len(names)
        counts = Counter(kinds).items()
        summary = ', '.join(f'{count} {kind}' for kind, count in counts)
        title = f'{self.title}, {self.total} entries: {summary or "all fit"}'
        return '\n  '.join([title, *lines, *self.notes])

    def log(self) -> None:
        """Print the table through mmengine's logger.

        It is a warning if weights stay at their initial values or are not used.
        """
        incomplete = self.missing or self.unexpected
        level = logging.WARNING if incomplete else logging.INFO
        print_log(str(self), logger='current', level=level)
