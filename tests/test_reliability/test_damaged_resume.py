"""Resuming a checkpoint that is nearly right ends in a sentence, or goes on."""

import logging

import pytest
import torch
from mmengine.logging import MessageHub

from mmdet_rfdetr.errors import CheckpointError, ResumeError
from tests.test_checkpoints.test_fuzz import replace

from .test_look_before_resuming import build, classes, trained  # noqa: F401


def resume(folder, source):
    """What a run does before its first step."""
    run = build(folder, source)
    run.logger.setLevel(logging.ERROR)
    run._train_loop = run.build_train_loop(run._train_loop)
    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    run.param_schedulers = run.build_param_scheduler(run.param_schedulers)
    run.call_hook('before_run')
    run.load_or_resume()


@pytest.fixture
def content(trained):  # noqa: F811
    return torch.load(trained / 'epoch_2.pth', weights_only=True)


ENTRIES = (
    *('meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers'),
    *('ema_state_dict', 'training_state'),
)


def places(content, entry):
    """An entry and those in it, and where a run stands."""
    yield (entry,)
    inner = content[entry]
    yield from ((entry, key) for key in (inner if isinstance(inner, dict) else (0,)))
    if entry == 'training_state':
        yield from ((entry, 'loop', key) for key in inner['loop'])
    if entry == 'message_hub':
        for key in ('best_score', 'keep_ckpt_ids', 'last_ckpt', 'epoch'):
            yield entry, 'runtime_info', key
        yield entry, 'resumed_keys', 'train/loss'


@pytest.mark.parametrize('entry', ENTRIES)
def test_an_entry_that_became_another_is_told_or_does_no_harm(content, tmp_path, entry):
    for place in places(content, entry):
        for value in (None, 1, 'x', [], {}):
            torch.save(replace(content, place, value), tmp_path / 'epoch_2.pth')
            run = build(tmp_path / 'work', tmp_path, epochs=3)
            run.logger.setLevel(logging.ERROR)
            try:
                run.train()
            except (CheckpointError, ResumeError) as error:
                assert len(str(error)) < 800 and '\n' not in str(error), place
            else:  # what was trained has not been lost
                assert run.iter == 30 or place[1:] in HARMLESS, (place, value)


HARMLESS = {('iter',), ('epoch',), ('loop', 'stop_training')}
"""Where another number, or another answer, only ends the run at another step."""


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (('meta', 'iter'), 'x'),
        (('optimizer', 'param_groups', 0, 'lr'), 'x'),
        (('optimizer', 'state', 0, 'step'), {}),
        (('param_schedulers', 0, 'last_step'), None),
        (('ema_state_dict', 'module.weight'), 'x'),
        (('training_state', 'loop', 'position'), 1),
        (('message_hub', 'runtime_info', 'best_score'), 'x'),
    ],
)
def test_the_error_names_file_and_entry(content, tmp_path, place, value):
    file = tmp_path / 'epoch_2.pth'
    torch.save(replace(content, place, value), file)
    with pytest.raises(CheckpointError, match=f'load_from={file} ') as error:
        resume(tmp_path / 'work', tmp_path)
    assert str(place[-1]) in str(error.value)


def test_a_changed_byte_is_noticed(trained, tmp_path):  # noqa: F811
    raw = (trained / 'epoch_2.pth').read_bytes()
    place = raw.index(b'max_epochs')
    (tmp_path / 'epoch_2.pth').write_bytes(raw[:place] + b'n' + raw[place + 1 :])
    with pytest.raises(CheckpointError, match=r'data.pkl is not what was saved'):
        resume(tmp_path / 'work', tmp_path)


def test_the_config_of_the_run_stays(content, tmp_path):
    """A stranger's would go into the files of this run, which one trusts."""
    content['message_hub']['runtime_info']['cfg'] = 'import os'
    torch.save(content, tmp_path / 'epoch_2.pth')
    resume(tmp_path / 'work', tmp_path)
    assert 'os' not in MessageHub.get_current_instance().get_info('cfg')
