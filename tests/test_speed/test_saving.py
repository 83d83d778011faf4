"""Checkpoints are written without copies, and configs are formatted once."""

import io
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as configs
from mmengine.hooks import Hook
from mmengine.runner import runner as runners
from yapf.yapflib import yapf_api

from mmdet_rfdetr import compat
from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.speed.saving import format_configs_once
from tests import toy


def test_a_config_is_formatted_once_for_each_text(monkeypatch):
    formatted = []

    def format_code(text, style_config):
        formatted.append(text)
        return yapf_api.FormatCode(text, style_config=style_config)

    monkeypatch.setattr(configs, 'FormatCode', format_code)
    assert format_configs_once()
    cfg = Config(dict(a=[1, 2]))
    assert [cfg.pretty_text, cfg.pretty_text] == ['a = [\n    1,\n    2,\n]\n'] * 2
    assert len(formatted) == 1
    cfg.a = 2
    assert cfg.pretty_text == 'a = 2\n'
    assert len(formatted) == 2
    assert {'format_configs_once', 'save_without_copies'} <= compat.active().keys()


class Fat(toy.Toy):
    """With a buffer of 4 MB, beside which nothing else is large."""

    def __init__(self):
        super().__init__()
        self.register_buffer('large', torch.zeros(10**6))


def test_a_checkpoint_is_never_whole_in_memory(tmp_path, monkeypatch):
    written = []
    save = torch.save

    def seen(content, file, **options):
        written.append(os.path.basename(getattr(file, 'name', 'memory')))
        save(content, file, **options)

    monkeypatch.setattr(torch, 'save', seen)
    hook = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    runner = toy.runner(tmp_path, epochs=1, model=Fat(), default_hooks=hook)
    runner.train()
    assert written == [f'.epoch_1.pth.{os.getpid()}.tmp']
    assert sorted(tmp_path.glob('*.pth')) == [tmp_path / 'epoch_1.pth']
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    assert state['large'].shape == (10**6,)


def test_a_folder_is_made_and_another_storage_is_left_alone(tmp_path):
    path = tmp_path / 'new' / 'weights.pth'
    runners.save_checkpoint(dict(a=torch.ones(1)), str(path))
    assert torch.load(path)['a'] == 1
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        runners.save_checkpoint({}, str(tmp_path))
    with pytest.raises((ImportError, ValueError, KeyError)):
        runners.save_checkpoint({}, 's3://bucket/weights.pth')


class Mapped(Hook):
    """Whether the checkpoint is mapped when it is read, and when training begins."""

    priority = 'HIGHEST'

    def __init__(self):
        self.seen = []

    def look(self, *args, **kwargs):
        self.seen.append('epoch_1.pth' in Path('/proc/self/maps').read_text())

    after_load_checkpoint = before_train = look


class Teacher(Hook):
    """Reads what torch cannot map, as a hook of a project may."""

    def after_load_checkpoint(self, runner, checkpoint):
        file = io.BytesIO()
        torch.save(dict(a=1), file)
        file.seek(0)
        assert torch.load(file) == dict(a=1)


@pytest.mark.skipif(not os.path.exists('/proc/self/maps'), reason='looks at mappings')
def test_a_resumed_run_keeps_nothing_of_its_file(tmp_path):
    loop = dict(
        loop='RFDETRTrainLoop',
        default_hooks=dict(checkpoint=dict(type='RFDETRCheckpointHook')),
        optimizer=dict(type='AdamW', lr=0.01),
    )
    toy.runner(tmp_path, epochs=1, model=Fat(), **loop).train()
    hook = Mapped()
    hooks = [dict(type='RFDETREMAHook'), hook, Teacher()]
    resumed = toy.runner(tmp_path, hooks, epochs=2, model=Fat(), resume=True, **loop)
    resumed.train()
    assert hook.seen == [True, False]
    plain = toy.runner(tmp_path / 'plain', epochs=2, model=Fat(), **loop)
    plain.train()
    assert torch.equal(plain.model.weight, resumed.model.weight)
