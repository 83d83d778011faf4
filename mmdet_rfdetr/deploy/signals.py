"""Signals while a file is made: what was begun goes, and no file is half there."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler, *numbers: int) -> Iterator[None]:
    """Let a function answer signals; does nothing outside of the main thread.

    Args:
        handler: called with the number and the frame.
        *numbers: of the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def leave(number: int, frame: FrameType | None) -> None:
    """End the process by way of all that cleans up, as Ctrl-C does by itself.

    Raises:
        SystemExit: with the exit code that shells give to this signal.
    """
    raise SystemExit(128 + number)


@contextmanager
def unbroken() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block is left."""
    came = []
    with handled(
        lambda number, frame: came.append(number), signal.SIGINT, signal.SIGTERM
    ):
        yield
    for number in came:
        signal.raise_signal(number)
