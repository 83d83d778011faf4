"""The config that a checkpoint holds as text is code, which nothing runs."""

import contextlib
from collections import OrderedDict

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import DataLoader

from mmdet_rfdetr.checkpoints import trust_checkpoint
from mmdet_rfdetr.checkpoints.loading import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError

PLACES = ('meta.cfg', 'meta.config', 'message_hub.runtime_info.cfg')
INFERENCER_READS = (PLACES[0], PLACES[2])


def stranger(tmp_path, place, **more):
    """A file of tensors and text, and what its config leaves behind."""
    trace = tmp_path / 'trace'
    content = {
        'state_dict': {'a': torch.zeros(1)},
        'meta': {},
        'message_hub': {},
        **more,
    }
    *keys, last = place.split('.')
    inner = content
    for key in keys:
        inner = inner.setdefault(key, {})
    inner[last] = f'open({str(trace)!r}, "w").close()\nmodel = dict(type="RFDETR")\n'
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    return str(path), trace


@pytest.mark.parametrize('place', INFERENCER_READS)
def test_an_inferencer_asks_for_a_config(tmp_path, place):
    path, trace = stranger(tmp_path, place)
    with pytest.raises(CheckpointError, match=r'weights.pth .*model=CONFIG') as caught:
        DetInferencer(weights=path, device='cpu')
    assert 'trust_checkpoint()' in str(caught.value)
    assert not trace.exists()
    with trust_checkpoint(), contextlib.suppress(Exception):
        DetInferencer(weights=path, device='cpu')
    assert trace.exists(), 'the config would not have worked anyway'


class Hiding:
    """A dict of which ``get`` says something else than it holds."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return OrderedDict, (list(self.content.items()),), {'get': set}


def structure(content):
    return InstanceData(metainfo=content)


@pytest.mark.parametrize('kind', [Hiding, structure])
@pytest.mark.parametrize('place', ['meta', 'message_hub', 'runtime_info'])
def test_a_config_does_not_hide_in_what_is_no_plain_dict(tmp_path, kind, place):
    path, trace = stranger(tmp_path, INFERENCER_READS[place != 'meta'])
    content = torch.load(path)
    outer = content['message_hub'] if place == 'runtime_info' else content
    outer[place] = kind(outer[place])
    torch.save(content, path)
    with pytest.raises(CheckpointError, match='nothing in it has run'):
        DetInferencer(weights=path, device='cpu')
    assert not trace.exists()


@pytest.mark.parametrize('value', [b'a = 1', ['a = 1'], None])
def test_a_config_that_is_no_text_is_refused_as_well(tmp_path, value):
    torch.save(
        {'state_dict': {'a': torch.zeros(1)}, 'meta': {'cfg': value}}, tmp_path / 'a'
    )
    with pytest.raises(CheckpointError, match='model=CONFIG'):
        DetInferencer(weights=str(tmp_path / 'a'), device='cpu')


def test_a_runner_that_resumes_does_not_run_it(tmp_path):
    model = torch.nn.Linear(1, 1)
    meta = {'epoch': 1, 'iter': 1}
    path, trace = stranger(
        tmp_path, 'meta.config', meta=meta, state_dict=model.state_dict()
    )
    runner = Runner(
        model,
        tmp_path,
        train_dataloader=DataLoader([0.0]),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_scope='mmdet',
    )
    with pytest.raises(CheckpointError, match='config in .*weights.pth'):
        runner.resume(path)
    assert not trace.exists()


@pytest.mark.parametrize('place', PLACES)
def test_a_text_of_a_file_is_not_run_by_hand_either(tmp_path, place):
    path, trace = stranger(tmp_path, place)
    with trust_checkpoint():
        load_checkpoint_file(path)  # makes nobody else trust the file
    content = load_checkpoint_file(path)
    for key in place.split('.'):
        content = content[key]
    with pytest.raises(CheckpointError, match='model=CONFIG'):
        Config.fromstring(content, '.py')
    assert not trace.exists()
    written = 'a = 1'  # by hand, and equal to that of some file
    assert Config.fromstring(written, '.py').a == 1
