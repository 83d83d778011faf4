"""Ending a run when the system or a person asks for it."""

import functools
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import print_log
from torch.utils.data import DataLoader

# sysexits.h: a failure that another attempt may not have.
EXIT_INTERRUPTED = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# All threads of a worker leave the signals to one that can tell who sent them. macOS
# cannot; there a signal to all processes ends the run in the middle of a step.
_TELLS_SENDERS = hasattr(signal, 'sigtimedwait')


class InterruptedRunError(Exception):
    """Leaves a validation that is not to be finished."""


class Interruption:
    """Remembers SIGTERM and SIGINT instead of ending the process at once.

    A second signal ends it as usual.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict = {}
        self._process = os.getpid()

    def __enter__(self) -> 'Interruption':
        """Take the signals over; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._remember) for number in SIGNALS
            }
        return self

    def __exit__(self, *exc_info) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for other, handler in self._before.items():
            signal.signal(other, handler)
        if os.getpid() != self._process:
            # Another process that was made during the run, by a pool for example,
            # has inherited this handler, and is to end when it is told to.
            signal.raise_signal(number)
            return
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
