"""Work that several processes share."""

import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from queue import Empty


def in_processes(
    work: Callable[..., None], shares: Sequence[tuple], step: Callable[[float], None]
) -> list[int]:
    """Have each share done by a process of its own.

    A process ends when it has work to report and this one is gone.

    Args:
        work: called with a share and a ``step``.
        shares: arguments.
        step: told of what any of them reports.

    Returns:
        Exit codes of those that failed.
    """
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    workers = [
        context.Process(target=_run, args=(work, share, queue)) for share in shares
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not queue.empty():
        with contextlib.suppress(Empty):
            step(queue.get(timeout=0.5))
    return [worker.exitcode for worker in workers if worker.exitcode]


def _run(work: Callable[..., None], share: tuple, queue) -> None:
    parent = multiprocessing.parent_process()

    def step(done: float) -> None:
        if not parent.is_alive():
            raise SystemExit('The process that asked for this has ended.')
        queue.put(done)

    work(*share, step)
