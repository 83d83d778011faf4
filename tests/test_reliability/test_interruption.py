"""Workers end with the training process, and only with it."""

import multiprocessing
import os
import signal
import time

import pytest
from torch.utils.data import DataLoader

from mmdet_rfdetr.training.interruption import SIGNALS, Interruption, tie_workers


def begin_and_wait(begun):
    begun.set()
    time.sleep(60)


def test_a_process_made_during_a_run_can_be_ended():
    # mmdet's VOCMetric leaves a pool behind, whose processes end with Python.
    context = multiprocessing.get_context('fork')
    begun = context.Event()
    with Interruption():
        child = context.Process(target=begin_and_wait, args=(begun,))
        child.start()
        # Python forgets a signal that comes while it is still being forked.
        assert begun.wait(60)
        child.terminate()
        child.join(10)
        exit_code = child.exitcode
        child.kill()
        child.join()
    assert exit_code == -signal.SIGTERM


class SignalledContext(type(multiprocessing.get_context('fork'))):
    """Processes that get a signal before they do anything."""

    class Process(multiprocessing.get_context('fork').Process):
        def run(self):
            os.kill(os.getpid(), signal.SIGTERM)
            super().run()


def test_a_worker_outlives_a_signal_while_it_starts():
    loader = DataLoader(
        range(3), num_workers=1, multiprocessing_context=SignalledContext()
    )
    tie_workers(loader)
    with Interruption():
        batches = list(loader)
    assert [batch.item() for batch in batches] == [0, 1, 2]
    # The process that trains gets its signals again.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*SIGNALS}


class Large:
    """Items that do not fit into the pipe to the training process."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return bytes(1 << 20)


def load_for_ever(started):
    os.setpgid(0, 0)
    loader = DataLoader(Large(), num_workers=2, collate_fn=list)
    tie_workers(loader)
    batches = iter(loader)
    next(batches)
    started.set()
    time.sleep(600)


def anyone_left(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_do_not_stay_behind_a_killed_training():
    context = multiprocessing.get_context('fork')
    started = context.Event()
    child = context.Process(target=load_for_ever, args=(started,))
    child.start()
    assert started.wait(60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    end = time.monotonic() + 60
    while anyone_left(child.pid) and time.monotonic() < end:
        time.sleep(0.1)
    if anyone_left(child.pid):
        os.killpg(child.pid, signal.SIGKILL)
        pytest.fail('workers were waiting to hand over their items')
