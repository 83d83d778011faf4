"""Workers end with the training process, and only with it."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_rfdetr.errors import EXIT_INTERRUPTED
from mmdet_rfdetr.reliability import interruption
from mmdet_rfdetr.reliability.interruption import (
    SIGNALS,
    Interruption,
)
from mmdet_rfdetr.reliability.workers import TiedProcess, with_tied_workers
from tests.toy import Numbers, runner


def end_at_once():
    """Fork processes that get SIGTERM before their first line; their exit codes."""
    context = multiprocessing.get_context('fork')
    children = [context.Process(target=time.sleep, args=(600,)) for _ in range(20)]
    for child in children:
        child.start()
        os.kill(child.pid, signal.SIGTERM)
    end = time.monotonic() + 120  # a busy machine may take long to run all of them
    for child in children:
        child.join(max(0, end - time.monotonic()))
        child.kill()
        child.join()
    return {child.exitcode for child in children}


def tell_and_sleep(pipe):
    pipe.send(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    time.sleep(600)


def test_a_process_made_during_a_run_ends_when_told():
    # mmdet's VOCMetric and OpenImagesMetric end their pools so, and wait for them.
    with Interruption() as remembered:
        assert end_at_once() == {-signal.SIGTERM}
        # A pool forks from a thread what takes the place of a dead process.
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(end_at_once).result() == {-signal.SIGTERM}
        os.kill(os.getpid(), signal.SIGTERM)
        assert remembered.signal == signal.SIGTERM  # this process remembers its own


@pytest.mark.parametrize('number', SIGNALS)
def test_a_process_made_during_a_run_is_ended_by_both_signals(number):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    context = multiprocessing.get_context('fork')
    pipe, end = context.Pipe()
    with Interruption():
        child = context.Process(target=tell_and_sleep, args=(end,))
        child.start()
        assert pipe.recv() == mask
        os.kill(child.pid, number)
        child.join()
    assert child.exitcode == -number


def get_twice(number):
    with Interruption():
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    os._exit(3)


@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize('seconds, ends', [(1e9, False), (-1, True)])
def test_a_signal_that_comes_twice_counts_once(number, seconds, ends, monkeypatch):
    """A cluster sends it to all processes, and torchrun to the same ones again."""
    monkeypatch.setattr(interruption, '_SAME_SIGNAL', seconds)
    context = multiprocessing.get_context('fork')
    child = context.Process(target=get_twice, args=(number,))
    child.start()
    child.join()
    # SIGINT raises KeyboardInterrupt, which ends the child with a traceback.
    assert child.exitcode in ({-signal.SIGTERM, 1} if ends else {3})


def test_a_process_made_after_a_run_inherits_nothing_of_it():
    before = [signal.getsignal(number) for number in SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with Interruption():
        pass
    read, write = os.pipe()
    child = os.fork()
    if not child:
        same = [signal.getsignal(number) for number in SIGNALS] == before
        os.write(write, bytes([same, signal.pthread_sigmask(0, ()) == mask]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 2) == bytes([True, True])


class Asks(Hook):
    """A person who presses Ctrl-C before the first step."""

    def before_train(self, runner):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_before_the_first_step_ends_the_run_after_it(tmp_path):
    run = runner(
        tmp_path,
        [dict(type='RFDETREMAHook'), Asks()],
        accumulation=3,
        loop='RFDETRTrainLoop',
        default_hooks=dict(checkpoint=dict(type='RFDETRCheckpointHook')),
    )
    with pytest.raises(SystemExit) as stop:
        run.train()
    assert stop.value.code == EXIT_INTERRUPTED
    assert run.iter == 3
    assert (tmp_path / 'interrupted.pth').is_file()


def build(dataset, **settings):
    settings = dict(dict(sampler=dict(type='DefaultSampler')), **settings)
    settings['dataset'] = dataset
    return Runner.build_dataloader(with_tied_workers(settings, seed=0), seed=0)


@pytest.mark.parametrize('number', SIGNALS)
def test_a_worker_outlives_a_signal_while_it_starts(number, monkeypatch):
    run = TiedProcess.run

    def signalled(process):
        os.kill(os.getpid(), number)
        run(process)

    monkeypatch.setattr(TiedProcess, 'run', signalled)
    order = dict(type='DefaultSampler', shuffle=False)
    loader = build(Numbers(), batch_size=1, num_workers=1, sampler=order)
    with Interruption():
        assert [int(batch[0]) for batch in loader] == list(range(10))
    # The process that trains gets its signals again.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*SIGNALS}


def leave_a_mark(worker_id, path):
    path.touch()


def test_what_a_config_has_its_workers_do_is_done_as_well(tmp_path):
    start = dict(type=leave_a_mark, path=tmp_path / 'started')
    loader = build(Numbers(), batch_size=5, num_workers=1, worker_init_fn=start)
    assert len(list(loader)) == 2
    assert (tmp_path / 'started').exists()


class Large:
    """Items that do not fit into the pipe to the training process."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return bytes(1 << 20)


def load_for_ever(started):
    os.setpgid(0, 0)
    loader = build(Large(), batch_size=1, num_workers=2)
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
