"""Clocks, and how much time each phase of a piece of work takes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


class Clock:
    """Adds up the milliseconds of named phases.

    A phase within another interrupts it, so that all phases together are the time of
    the work. On a GPU the borders between phases are events in its queue: they are
    not waited for, since work that is queued early is what hides the host's time.

    Args:
        kind: ``'wall'``, or ``'cpu'``: the time that this process used, which a busy
            neighbour does not lengthen; right for one thread and no GPU.
        device: what the work runs on.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        self._now = CLOCKS[kind]
        self._device = device
        self._running: list[str] = []
        self._last_border: float | torch.cuda.Event | None = None
        self._parts: list[tuple[str, object, object]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what happens inside to a phase; within itself, it counts once."""
        if name in self._running or self._is_recording():
            yield
            return
        self._pass_border()
        self._running.append(name)
        yield
        self._pass_border()
        self._running.pop()

    def watch(self, owner: object, method: str, name: str) -> None:
        """Count all calls of an object's method as a phase."""
        function: Callable = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.phase(name):
                return function(*args, **kwargs)

        setattr(owner, method, timed)

    def add(self, name: str, milliseconds: float) -> None:
        """Count a phase that another process measured, on no GPU."""
        self._parts.append((name, 0.0, milliseconds))

    def take(self) -> dict[str, float]:
        """The phases since the last call of this method, when all work is done."""
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        parts, self._parts = self._parts, []
        phases: dict[str, float] = {}
        for name, start, end in parts:
            length = start.elapsed_time(end) if self._on_gpu else end - start
            phases[name] = phases.get(name, 0.0) + length
        return phases

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == 'cuda'

    def _is_recording(self) -> bool:
        return self._on_gpu and torch.cuda.is_current_stream_capturing()

    def _pass_border(self) -> None:
        """End a part of the phase that runs; another one begins."""
        border = self.read()
        if self._running:
            self._parts.append((self._running[-1], self._last_border, border))
        self._last_border = border

    def read(self) -> float | torch.cuda.Event:
        """Milliseconds of a clock, or an event that knows them later."""
        if not self._on_gpu:
            return self._now() * 1e3
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
