"""Resuming a checkpoint that is nearly right ends in a sentence, or goes on."""

import logging

import pytest
import torch
from mmengine.logging import MessageHub

from mmdet_rfdetr.errors import CheckpointError
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


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (('message_hub',), 7),
        (('message_hub', 'log_scalars'), []),
        (('optimizer',), {}),
        (('param_schedulers',), [1]),
        (('ema_state_dict',), {}),
        (('training_state', 'loop', 'ranks'), [1]),
        (('meta', 'trained_with'), 'text'),
    ],
)
def test_an_entry_of_another_type_is_told(content, tmp_path, place, value):
    torch.save(replace(content, place, value), tmp_path / 'epoch_2.pth')
    with pytest.raises(CheckpointError, match=r'checkpoint is damaged.*get the file'):
        resume(tmp_path / 'work', tmp_path)


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
