"""Ending a run when the system or a person asks for it."""

import os
import signal
import threading
from types import FrameType

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import print_log

# sysexits.h: a failure that another attempt may not have.
EXIT_INTERRUPTED = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedRunError(Exception):
    """Leaves a validation that is not to be finished."""


class Interruption:
    """Remembers SIGTERM and SIGINT instead of ending the process at once.

    A second signal ends it as usual. Worker processes inherit the handlers and ignore
    the first Ctrl-C, which a terminal sends to them as well.
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
        if os.getpid() == self._process:
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
