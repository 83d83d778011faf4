"""A run that was stopped anywhere and resumed ends where it would have ended."""

import json
import os
import signal
from contextlib import suppress
from functools import partial

import pytest
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import BatchSampler

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import EXIT_INTERRUPTED, ResumeError
from mmdet_rfdetr.reliability.resumable_batches import RFDETRResumableBatchSampler
from tests import toy
from tests.factory import write_coco

from .project import config, differences, result, train_in_child

BY_EPOCH = {}
BY_ITERATION = {
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 3,
}
MODES = {'by epoch': BY_EPOCH, 'by iteration': BY_ITERATION}


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(9))  # five batches: optimizer steps cross epochs
    return folder


@pytest.fixture(scope='module')
def uninterrupted(data, tmp_path_factory):
    """For each mode: the seed of a whole run, its result, and its events."""
    runs = {}

    def get(mode):
        if mode not in runs:
            folder = tmp_path_factory.mktemp('uninterrupted')
            assert train_in_child(config(data, folder, **MODES[mode])) == 0
            events = json.loads((folder / 'events.json').read_text())
            path = (folder / 'last_checkpoint').read_text()
            seed = load_checkpoint_file(path)['meta']['seed']
            runs[mode] = seed, result(folder), events
        return runs[mode]

    return get


def stop_and_resume(data, folder, mode, seed, event, number=signal.SIGKILL):
    first = config(data, folder, **MODES[mode], **{'randomness.seed': seed})
    exitcode = train_in_child(first, event, number)
    # A resumed run draws a seed of its own, which it has to forget; one that was killed
    # before its first checkpoint begins anew.
    again = config(data, folder, **MODES[mode], resume=True)
    if not (folder / 'last_checkpoint').exists():
        again.randomness = dict(seed=seed)
    assert train_in_child(again) == 0
    return exitcode


def test_a_signal_ends_a_run_at_once_that_has_mmengines_checkpoints(data, tmp_path):
    """Those know no place in an epoch: nothing is promised that --resume cannot do."""
    cfg = config(data, tmp_path, **{'default_hooks.checkpoint.type': 'CheckpointHook'})
    assert train_in_child(cfg, 9, signal.SIGTERM) == -signal.SIGTERM
    assert not list(tmp_path.glob('*.pth'))


def check(uninterrupted, data, folder, mode, share):
    seed, expected, events = uninterrupted(mode)
    if share == 'write':  # of a file, half way through the run
        event = events['writes'][len(events['writes']) // 2]
    else:
        event = 1 + int(share * (events['count'] - 1))
    exitcode = stop_and_resume(data, folder, mode, seed, event)
    assert exitcode == -signal.SIGKILL
    assert differences(expected, result(folder)) == []


@pytest.mark.parametrize(
    ('mode', 'share'),
    [
        ('by epoch', 0.5),
        long('by iteration', 0.3),
        long('by epoch', 'write'),
    ],
)
def test_killed_and_resumed(mode, share, uninterrupted, data, tmp_path):
    check(uninterrupted, data, tmp_path, mode, share)


@pytest.mark.slow
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('tenth', range(10))
def test_killed_at_twenty_points(mode, tenth, uninterrupted, data, tmp_path):
    check(uninterrupted, data, tmp_path, mode, (tenth + 0.7) / 10.5)


@pytest.mark.parametrize(
    ('event', 'kill', 'number'),
    [
        (9, os.killpg, signal.SIGTERM),
        ('validation', os.killpg, signal.SIGINT),
        long(9, os.killpg, signal.SIGINT),
        long('validation', os.killpg, signal.SIGTERM),
        long(9, os.kill, signal.SIGTERM),
        long(9, os.kill, signal.SIGINT),
    ],
)
def test_a_signal_saves_and_ends_with_a_code(
    number, event, kill, uninterrupted, data, tmp_path
):
    seed, expected, _ = uninterrupted('by epoch')
    cfg = config(data, tmp_path, **{'randomness.seed': seed})
    assert train_in_child(cfg, event, number, kill) == EXIT_INTERRUPTED == 75
    last = tmp_path / 'interrupted.pth'
    assert (tmp_path / 'last_checkpoint').read_text() == str(last)
    state = load_checkpoint_file(str(last))
    position = state['training_state']['loop']['position']
    if event == 'validation':
        assert position == dict(epoch=1, batches=0, validation_due=True)
    else:
        assert position['epoch'] == 0 and position['batches'] % 2 == 0
    assert train_in_child(config(data, tmp_path, resume=True)) == 0
    assert differences(expected, result(tmp_path)) == []


def test_a_signal_in_a_validation_takes_mmengines_average_back(data, tmp_path):
    cfg = config(data, tmp_path)
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=0.1)
    code = train_in_child(cfg, 'validation', signal.SIGTERM)
    assert code == EXIT_INTERRUPTED
    # Nothing was trained since the first was written, before the validation.
    before, after = (
        load_checkpoint_file(str(tmp_path / name))
        for name in ('epoch_1.pth', 'interrupted.pth')
    )
    for key in ('state_dict', 'ema_state_dict'):
        assert differences(before[key], after[key]) == []
    assert differences(before['state_dict'], before['ema_state_dict'])


def loop_of(data, folder):
    return Runner.from_cfg(config(data, folder)).train_loop


def test_another_number_of_images_in_an_iteration_is_refused(data, tmp_path):
    loop = loop_of(data, tmp_path)
    state = loop.state_dict()
    state['ranks'] *= 2
    with pytest.raises(ResumeError, match='by 2 x 2 images.*this run has 1 x 2'):
        loop.load_state_dict(state)


def test_another_data_set_inside_an_epoch_is_refused(data, tmp_path):
    loop = loop_of(data, tmp_path)
    state = loop.state_dict()
    state['position']['batches'] = 2
    state['images'] = 11
    with pytest.raises(ResumeError, match='11 images in 5 batches.*has 9 in 5'):
        loop.load_state_dict(state)


def test_as_many_images_from_other_processes_go_on_with_a_message(data, tmp_path):
    loop = loop_of(data, tmp_path)
    state = loop.state_dict()
    state['ranks'] *= 2
    state.update(batch_size=1)
    state['position']['batches'] = 2
    lines = []
    loop.runner.logger.warning = lines.append
    loop.load_state_dict(state)
    (line,) = lines
    assert 'written by 2 processes, and this run has 1' in line
    assert loop.position.batches == 2


def global_batches(world_size, batch_size, monkeypatch):
    """The images of each iteration, of all processes together."""
    iterations = []
    for rank in range(world_size):
        monkeypatch.setattr(
            'mmengine.dataset.sampler.get_dist_info',
            lambda rank=rank: (rank, world_size),
        )
        sampler = DefaultSampler(range(24), seed=3)
        batches = RFDETRResumableBatchSampler(sampler, batch_size, seed=3)
        batches.start = 2
        iterations.append([list(batch) for batch in batches])
    return [sorted(sum(parts, [])) for parts in zip(*iterations, strict=True)]


def test_the_images_of_an_iteration_do_not_depend_on_the_processes(monkeypatch):
    get = partial(global_batches, monkeypatch=monkeypatch)
    assert get(1, 4) == get(2, 2) == get(4, 1)
    assert len(get(1, 4)) == 24 // 4 - 2


def test_the_batches_are_those_of_the_batch_sampler_that_a_config_has():
    sampler = DefaultSampler(range(5), shuffle=False)
    settings = dict(type=BatchSampler, drop_last=True)
    batches = RFDETRResumableBatchSampler(sampler, 2, seed=3, batch_sampler=settings)
    batches.start = 1
    assert len(batches) == 2
    assert [list(batch) for batch in batches] == [[2, 3]]


class SeenNumbers(Hook):
    """Write down the batches, and send a signal after one of them."""

    priority = 'LOW'

    def __init__(self, last=None):
        self.last, self.numbers = last, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.numbers += data_batch.flatten().tolist()
        if runner.iter == self.last:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize('is_built', [False, True])
def test_a_loader_that_a_project_builds_is_used_as_it_is(is_built, tmp_path):
    seen = []
    for last in (3, None):
        run = toy.runner(
            tmp_path,
            loop='RFDETRTrainLoop',
            default_hooks=dict(checkpoint=dict(type='RFDETRCheckpointHook')),
        )
        if is_built:
            run._train_dataloader = Runner.build_dataloader(toy.loader())
        run._resume = last is None
        hook = SeenNumbers(last)
        run.register_hook(hook)
        with suppress(SystemExit):
            run.train()
        seen.append(hook.numbers)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9, *range(10)]]
