"""Loader workers that end with the training process, and only with it."""

import copy
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from mmengine.dataset import worker_init_fn
from mmengine.dist import get_rank
from mmengine.registry import FUNCTIONS

from .interruption import SIGNALS

# All threads of a worker leave the signals to one that can tell who sent them. macOS
# cannot; there a signal to all processes ends the run in the middle of a step.
_TELLS_SENDERS = hasattr(signal, 'sigtimedwait')


def with_tied_workers(loader: Any, seed: int) -> Any:
    """The config of a data loader, with workers that are tied to this process.

    A terminal sends Ctrl-C to all processes of a run, and clusters do so with SIGTERM:
    the step that is to be finished first needs its workers. If the training process is
    killed, torch's workers end as well, unless they wait for somebody to take what they
    made; then they would stay, with all their memory, for good.

    Args:
        loader: config of a data loader; its ``worker_init_fn`` is called as well.
            Anything else is given back as it is.
        seed: the run's seed.
    """
    if not isinstance(loader, dict):
        return loader
    loader = copy.copy(loader)
    settings = copy.copy(loader.get('worker_init_fn')) or dict(  # mmengine's own
        type=worker_init_fn,
        num_workers=loader.get('num_workers'),
        rank=get_rank(),
        seed=seed,
        disable_subprocess_warning=loader.pop('disable_subprocess_warning', False),
    )
    function = settings.pop('type')
    function = FUNCTIONS.get(function) if isinstance(function, str) else function
    then = functools.partial(function, **settings)
    loader['worker_init_fn'] = dict(type=tie_to, parent=os.getpid(), then=then)
    forks = multiprocessing.get_start_method() == 'fork'
    if _TELLS_SENDERS and forks and loader.get('num_workers'):
        loader.setdefault('multiprocessing_context', TiedContext())
    return loader


def tie_to(worker_id: int, parent: int, then: Callable[[int], None]) -> None:
    """Tie this worker to the process that trains.

    Args:
        worker_id: its number.
        parent: the process.
        then: what else a worker begins with.
    """
    if _TELLS_SENDERS:
        # Not every way to start a process hands the blocked signals on.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    then(worker_id)


def _end_with(parent: int) -> None:
    """End this process when its parent says so, or is gone."""
    while os.getppid() == parent:
        received = signal.sigtimedwait(SIGNALS, 2)
        told = received and (received.si_signo, received.si_pid)
        if told == (signal.SIGTERM, parent):
            break
    os._exit(0)  # anything else is an error to torch


if _TELLS_SENDERS:

    class TiedProcess(multiprocessing.context.ForkProcess):
        """A worker that has the signals blocked from its first moment on."""

        def start(self) -> None:
            """Fork with the signals blocked, as the worker then has them."""
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    class TiedContext(multiprocessing.context.ForkContext):
        """Starts the workers of a loader."""

        Process = TiedProcess
