"""Resuming a checkpoint that is nearly right ends in a sentence, or goes on."""

import logging

import pytest
import torch
from mmengine.logging import MessageHub

from mmdet_rfdetr.errors import CheckpointError, ExplainedError
from tests.test_checkpoints.test_fuzz import places, replace

from .test_look_before_resuming import build, classes, trained  # noqa: F401

VALUES = (None, -1, 'text', [1], {}, torch.ones(2, 3))


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


def some_places(content):
    """Those of one log, one group and one parameter, which stand for the others."""
    seen = set()
    for place in places(content):
        alike = tuple(str(key) for key in place[:2]), len(place)
        if alike not in seen or place[-1] in ('params', 'step', 'ranks'):
            seen.add(alike)
            yield place


def test_every_kind_of_entry_of_another_type(content, tmp_path):
    for index, place in enumerate(some_places(content)):
        value = VALUES[index % len(VALUES)]
        path = tmp_path / 'source' / 'epoch_2.pth'
        path.parent.mkdir(exist_ok=True)
        torch.save(replace(content, place, value), path)
        try:
            resume(tmp_path / str(index), path.parent)
        except ExplainedError as error:
            assert '\n' not in str(error)
        except Exception as error:
            raise AssertionError(f'{place} = {value!r}') from error


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (('message_hub',), 7),
        (('message_hub', 'log_scalars'), []),
        (('optimizer',), {}),
        (('optimizer', 'state', 0), 'text'),
        (('param_schedulers',), [1]),
        (('ema_state_dict',), {}),
        (('training_state', 'loop', 'ranks'), [1]),
        (('meta', 'seed'), -1),
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
