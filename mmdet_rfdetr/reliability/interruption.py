"""Ending a run when the system or a person asks for it."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import ClassVar

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import print_log
from torch.utils.data import DataLoader

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# All threads of a worker leave the signals to one that can tell who sent them. macOS
# cannot; there a signal to all processes ends the run in the middle of a step.
_TELLS_SENDERS = hasattr(signal, 'sigtimedwait')
# torchrun hands on what it gets. Where a cluster signals all processes of a job, those
# that it started get everything twice; for so many seconds the second one is the first.
_SAME_SIGNAL = 5.0


class InterruptedRunError(Exception):
    """Leaves a validation that is not to be finished."""


class Interruption:
    """Remembers SIGTERM and SIGINT instead of ending the process at once.

    A second signal ends it as usual; under torchrun, one that comes later. Processes
    that are forked meanwhile, by the pool of a metric for example, handle both signals
    as they would without it.
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
            _handlers.update(self._before)
        return self

    def __exit__(self, *exc_info) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            _handlers.pop(number, None)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        is_first = self.signal is None
        now = time.monotonic()
        if 'TORCHELASTIC_RUN_ID' not in os.environ:
            self._give_back()
        elif not is_first and now - self._time > _SAME_SIGNAL:
            self._give_back()
            signal.raise_signal(number)
        if not is_first:
            return
        self.signal, self._time = number, now
        print_log(
            f'{signal.Signals(number).name}: the run ends after this step and '
            'writes a checkpoint. Once more ends it at once.',
            logger='current',
        )

    def is_asked_for(self) -> bool:
        """Whether any process was asked to end; all have to call it together."""
        if get_world_size() == 1:
            return self.signal is not None
        flag = torch.tensor(int(self.signal is not None))
        all_reduce(flag, 'max')
        return bool(flag)


# What the signals did before a run took them over; empty outside of one.
_handlers: dict = {}


class _Fork(threading.local):
    """What a fork of the present thread began with."""

    handlers: ClassVar[dict] = {}
    mask: Collection[int] = ()


_fork = _Fork()


@functools.cache
def _protect_forks() -> None:
    """From now on, let children that are forked during a run begin without its handler.

    Python forgets what a child receives before its first line: the handler has noted
    it, and the note is wiped. Blocked, a signal waits until the child is set up.
    """
    if hasattr(os, 'register_at_fork'):
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=_after_fork_in_parent,
            after_in_child=_after_fork_in_child,
        )


def _before_fork() -> None:
    _fork.handlers = dict(_handlers)
    if _fork.handlers:
        _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork_in_parent() -> None:
    if _fork.handlers:
        signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


def _after_fork_in_child() -> None:
    _handlers.clear()
    if not _fork.handlers:
        return
    # Python ignores what is raised here, such as KeyboardInterrupt: a signal that has
    # come already meets the system's own handling.
    for number, handler in _fork.handlers.items():
        signal.signal(number, signal.SIG_DFL if callable(handler) else handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)
    for number, handler in _fork.handlers.items():
        signal.signal(number, handler)


def tie_workers(loader: DataLoader) -> None:
    """Let the workers of a loader end with the training process, and only with it.

    A terminal sends Ctrl-C to all processes of a run, and clusters do so with SIGTERM:
    the step that is to be finished first needs its workers. If the training process is
    killed, torch's workers end as well, unless they wait for somebody to take what they
    made; then they would stay, with all their memory, for good.

    Args:
        loader: a loader whose workers have not been started.
    """
    loader.worker_init_fn = functools.partial(
        _tie_to, os.getpid(), loader.worker_init_fn
    )
    # What a data loader calls to start its workers.
    loader._get_iterator = functools.partial(_with_blocked, loader._get_iterator)


def _with_blocked(start: Callable[[], object]) -> object:
    """Start workers that have the signals blocked from the first moment on."""
    if not _TELLS_SENDERS:
        return start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tie_to(parent: int, then: Callable[[int], None] | None, worker_id: int) -> None:
    if _TELLS_SENDERS:
        # Not every way to start a process hands the blocked signals on.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if then is not None:
        then(worker_id)


def _end_with(parent: int) -> None:
    """End this process when its parent says so, or is gone."""
    while os.getppid() == parent:
        received = signal.sigtimedwait(SIGNALS, 2)
        if received and (received.si_signo, received.si_pid) == (
            signal.SIGTERM,
            parent,
        ):
            break
    os._exit(0)  # anything else is an error to torch
