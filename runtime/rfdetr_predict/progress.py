"""How far a long step has come, and when it will end."""

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence

_SECONDS = 0.5, 10.0  # between two lines on a terminal, and elsewhere
_CELLS = 20


class Progress:
    """Tells it on standard error: a bar on a terminal, else a line now and then.

    The cursor waits at the start of the bar, so that what others print covers it; where
    that is shorter, the rest of the bar is seen until a ``logger`` is given.

    Args:
        total: how many in all, None if nobody knows.
        quiet: say nothing.
        what: is counted.
        logger: the bar gives way to its lines.
    """

    def __init__(
        self,
        total: int | None,
        quiet: bool = False,
        what: str = 'pictures',
        logger: logging.Logger | None = None,
    ) -> None:
        self._total, self._quiet, self._what = total, quiet, what
        self._on_terminal = sys.stderr.isatty()
        self._start = self._said = time.monotonic()
        self._width = 0
        self.done = 0
        self._logger = logger
        if logger is not None:
            logger.addFilter(self._give_way)

    def step(self, count: int = 1) -> None:
        """One more is done, or so many; the bar goes with the last."""
        self.done += count
        now = time.monotonic()
        if not self._quiet and now - self._said >= _SECONDS[not self._on_terminal]:
            self._said = now
            self._print(self.line(now - self._start))
        if self.is_done:
            self.close()
            if self._logger is not None:
                self._logger.removeFilter(self._give_way)

    @property
    def is_done(self) -> bool:
        """Whether that was the last one."""
        return self.done == self._total

    def reach(self, done: int) -> None:
        """So many are done in all."""
        self.step(done - self.done)

    def close(self) -> None:
        """Take the bar away."""
        if self._width:
            self._print('')
            self._width = 0

    def _give_way(self, record: logging.LogRecord) -> bool:
        self.close()
        return True

    def _print(self, line: str) -> None:
        if not self._on_terminal:
            print(line, file=sys.stderr, flush=True)
            return
        if line and self._total:
            full = round(_CELLS * min(self.done / self._total, 1))
            line = f'[{"#" * full}{"." * (_CELLS - full)}] {line}'
        line = line[: shutil.get_terminal_size().columns - 1]
        print(f'{line:<{self._width}}', end='\r', file=sys.stderr, flush=True)
        self._width = len(line)

    def line(self, seconds: float) -> str:
        """What is said after so many seconds."""
        rate = self.done / seconds if seconds else 0.0
        if self._total is None:
            return f'{self.done} {self._what}, {rate:.1f} a second'
        # A video may hold more frames than its header says.
        left = max(self._total - self.done, 0) / rate if rate else 0.0
        minutes, rest = divmod(round(left), 60)
        return (
            f'{self.done} of {max(self._total, self.done)} {self._what}, {rate:.1f} a '
            f'second, {minutes}:{rest:02d} left'
        )


def watched(entries: Sequence, what: str = 'pictures') -> Iterator:
    """Give back what is given, one by one, and tell how far that is."""
    progress = Progress(len(entries), what=what)
    for entry in entries:
        yield entry
        progress.step()
