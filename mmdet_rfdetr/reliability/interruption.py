"""Ending a run when the system or a person asks for it."""

import functools
import os
import signal
import threading
import time
from types import FrameType

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import print_log

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Where a cluster signals all processes of a job, and torchrun hands on what it gets,
# everything comes twice; for so many seconds the second one is the first.
_SAME_SIGNAL = 5.0


class InterruptedRunError(Exception):
    """Leaves a validation that is not to be finished."""


class Interruption:
    """Remembers SIGTERM and SIGINT instead of ending the process at once.

    One that comes later than five seconds after the first ends it as usual. Processes
    that are forked meanwhile, by the pool of a metric for example, are ended by both.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._time = 0.0
        self._before: dict = {}

    def __enter__(self) -> 'Interruption':
        """Take the signals over; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            _protect_forks()
            self._before = {
                number: signal.signal(number, self._remember) for number in SIGNALS
            }
            _running.add(self)
        return self

    def __exit__(self, *exc_info) -> None:
        """Give the signals back."""
        _running.discard(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._time = number, now
            print_log(
                f'{signal.Signals(number).name}: the run ends after this step and '
                f'writes a checkpoint. Once more, {_SAME_SIGNAL:g} s from now or '
                'later, ends it at once.',
                logger='current',
            )
        elif now - self._time > _SAME_SIGNAL:
            self.__exit__()
            signal.raise_signal(number)

    def is_asked_for(self) -> bool:
        """Whether any process was asked to end; all have to call it together."""
        if get_world_size() == 1:
            return self.signal is not None
        flag = torch.tensor(int(self.signal is not None))
        all_reduce(flag, 'max')
        return bool(flag)


_running: set[Interruption] = set()
# What a thread that forks had blocked before it.
_before_fork = threading.local()


@functools.cache
def _protect_forks() -> None:
    """From now on, let processes that are forked during a run end by both signals.

    Python forgets what a process receives before its first line: the handler of its
    parent has noted it, and the note is wiped. mmdet's metrics wait for the processes
    of a pool that they have told to end, for good if one of them does not hear it.
    Blocked, a signal waits until the process is set up.
    """

    def before() -> None:
        _before_fork.mask = None
        if _running:
            _before_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def after() -> None:
        if _before_fork.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.mask)

    def after_in_child() -> None:
        if _running:
            _running.clear()
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
        after()

    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(
            before=before, after_in_parent=after, after_in_child=after_in_child
        )
