"""Threads with bounded queues: one reads ahead, another writes behind."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_END = object()
_SECONDS = 0.1  # between two looks whether all shall stop


@contextmanager
def ahead(
    items: Iterable, most: int, stop: threading.Event | None = None
) -> Iterator[Iterator]:
    """Iterate in a thread of its own, at most ``most`` items before they are asked for.

    Args:
        items: what is iterated there; what it raises is raised here.
        most: items that wait.
        stop: ends the iterator when it is set, also while it waits.

    Yields:
        An iterator; on leaving, the thread has ended.
    """
    waiting: queue.Queue = queue.Queue(most)
    stopped = threading.Event()

    def hand_over(item: tuple) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not hand_over((item, None)):
                    return
            hand_over((_END, None))
        except BaseException as error:
            hand_over((_END, error))
        finally:
            if hasattr(iterator, 'close'):  # a generator, which may hold a camera
                iterator.close()

    def arrived() -> Iterator:
        while stop is None or not stop.is_set():
            try:
                item, error = waiting.get(timeout=_SECONDS)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield arrived()
    finally:
        stopped.set()
        thread.join(timeout=5)


class Behind:
    """Calls a function in a thread of its own, for one item after the other.

    Args:
        function: called with what is put.
        most: items that wait; putting more waits as well.
    """

    def __init__(self, function: Callable[..., Any], most: int) -> None:
        self._function = function
        self._waiting: queue.Queue = queue.Queue(most)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, *item) -> None:
        """Hand one over; raises what the function raised for an earlier one."""
        self._waiting.put(item)
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all is done; raises what the function raised."""
        self._waiting.put(_END)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._error is None:
                try:
                    self._function(*item)
                except BaseException as error:
                    self._error = error
