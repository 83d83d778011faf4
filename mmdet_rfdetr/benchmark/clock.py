"""Clocks, and how much time each phase of a piece of work takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


class Clock:
    """Adds up the milliseconds of named phases, which may be nested.

    Args:
        kind: ``'wall'``, or ``'cpu'``: the time that this process used, which a busy
            neighbour does not lengthen; right for one thread and no GPU.
        device: its queue is waited for at the borders of a phase.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        self._now = CLOCKS[kind]
        self._device = device
        self._running: set[str] = set()
        self.phases: dict[str, float] = {}

    def read(self) -> float:
        """The time in milliseconds, when all work so far is done."""
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        return self._now() * 1e3

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what happens inside to a phase; within itself, it counts once."""
        if name in self._running:
            yield
            return
        self._running.add(name)
        start = self.read()
        yield
        self.phases[name] = self.phases.get(name, 0.0) + self.read() - start
        self._running.remove(name)

    def watch(self, owner: object, method: str, name: str) -> None:
        """Count all calls of an object's method as a phase."""
        function: Callable = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.phase(name):
                return function(*args, **kwargs)

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        """The phases since the last call of this method."""
        phases, self.phases = self.phases, {}
        return phases
