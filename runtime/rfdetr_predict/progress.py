"""How far a run has come, and when it will end."""

import sys
import time

_SECONDS = 0.5, 10.0  # between two lines on a terminal, and elsewhere


class Progress:
    """Tells it on standard error.

    Args:
        total: pictures in all, None if nobody knows.
        quiet: say nothing.
    """

    def __init__(self, total: int | None, quiet: bool = False) -> None:
        self._total, self._quiet = total, quiet
        self._on_terminal = sys.stderr.isatty()
        self._start = self._said = time.monotonic()
        self.done = 0

    def step(self) -> None:
        """One more picture is done."""
        self.done += 1
        now = time.monotonic()
        if not self._quiet and now - self._said >= _SECONDS[not self._on_terminal]:
            self._said = now
            end = '\r' if self._on_terminal else '\n'
            print(f'{self.line(now - self._start):<60}', end=end, file=sys.stderr)
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """What is said after so many seconds."""
        rate = self.done / seconds if seconds else 0.0
        if self._total is None:
            return f'{self.done} pictures, {rate:.1f} a second'
        # A video may hold more frames than its header says.
        left = max(self._total - self.done, 0) / rate if rate else 0.0
        minutes, rest = divmod(round(left), 60)
        return (
            f'{self.done} of {max(self._total, self.done)} pictures, {rate:.1f} a '
            f'second, {minutes}:{rest:02d} left'
        )
