import contextlib
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file

from mmdet_rfdetr.checkpoints import (
    load_checkpoint_file,
    trust_checkpoint,
)
from mmdet_rfdetr.errors import CheckpointError, UntrustedCheckpointError

WEIGHTS = {'layer.weight': torch.arange(6.0).view(2, 3)}


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def touch(path):
    """A payload that leaves a file behind."""
    return Payload(exec, f'open({str(path)!r}, "w").close()')


def save(tmp_path, content, **options):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **options)
    return path


def test_a_checkpoint_of_mmengine_loads(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    path = save(
        tmp_path,
        {
            'state_dict': OrderedDict(WEIGHTS),
            'meta': {
                'epoch': 3,
                'dataset_meta': ConfigDict(classes=('a',), x=dict(y=1)),
            },
            'message_hub': {
                'log_scalars': OrderedDict(loss=history),
                'runtime_info': {'mAP': np.float64(0.5), 'n': np.int64(3)},
                'arrays': [np.eye(2, dtype=np.float32), np.array(['text'])],
            },
        },
    )
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    loaded = load_checkpoint_file(path)
    assert torch.equal(loaded['state_dict']['layer.weight'], WEIGHTS['layer.weight'])
    assert loaded['meta']['dataset_meta'] == {'classes': ('a',), 'x': {'y': 1}}
    read = loaded['message_hub']['log_scalars']['loss']
    assert (read.mean(), read.statistics('max')) == (1.5, 2.0)
    assert loaded['message_hub']['runtime_info'] == {'mAP': 0.5, 'n': 3}
    assert loaded['message_hub']['arrays'][0].dtype == np.float32


def test_numpy_1_wrote_other_paths(tmp_path):
    path = save(tmp_path, {'value': np.float64(0.5), 'array': np.arange(3)})
    raw = path.read_bytes()
    assert b'numpy._core' in raw
    # The archive's directory knows lengths and checksums, so rewrite the old format.
    torch.save(
        {'value': np.float64(0.5), 'array': np.arange(3)},
        path,
        _use_new_zipfile_serialization=False,
    )
    path.write_bytes(path.read_bytes().replace(b'numpy._core', b'numpy.core'))
    loaded = load_checkpoint_file(path)
    assert loaded['value'] == 0.5
    assert loaded['array'].tolist() == [0, 1, 2]


def test_trust_lets_a_payload_run_while_it_lasts(tmp_path):
    trace = tmp_path / 'trace'
    path = save(tmp_path, {**WEIGHTS, 'args': touch(trace)})
    with trust_checkpoint():
        assert 'layer.weight' in load_checkpoint_file(path)
    assert trace.exists()
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint_file(path)


def test_mmengine_refuses_a_payload_too(tmp_path):
    trace = tmp_path / 'trace'
    path = save(tmp_path, {'state_dict': WEIGHTS, 'meta': touch(trace)})
    with pytest.raises(UntrustedCheckpointError):
        CheckpointLoader.load_checkpoint(str(path))
    assert not trace.exists()


@pytest.mark.parametrize('content', [WEIGHTS, {'state_dict': WEIGHTS, 'meta': {}}])
def test_checkpoints_of_other_models_come_as_they_are(tmp_path, content):
    loaded = load_checkpoint_file(save(tmp_path, content))
    assert loaded.keys() == content.keys()
    model_of_another_project = {'model': WEIGHTS, 'epoch': 1}
    loaded = load_checkpoint_file(save(tmp_path, model_of_another_project))
    assert loaded.keys() == {'model', 'epoch'}


def test_a_missing_file_is_told_from_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'nowhere.pth does not.*{tmp_path}'):
        load_checkpoint_file('nowhere.pth')
    for path in (tmp_path, '/dev/null'):
        with pytest.raises(FileNotFoundError, match=f'{path} is no ordinary file'):
            load_checkpoint_file(path)


@pytest.mark.parametrize(
    ('suffix', 'zipped', 'keep'),
    [
        *[('.pth', True, keep) for keep in (5, 500, -100)],
        *[('.pth', False, keep) for keep in (100, -8)],
        *[('.safetensors', None, keep) for keep in (4, 50, -8)],
    ],
)
def test_a_truncated_file_is_told(tmp_path, suffix, zipped, keep):
    path = tmp_path / f'model{suffix}'
    if zipped is None:
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match='get the file again'):
        load_checkpoint_file(path)


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ([1, 2], 'list'),
        ({}, 'nothing'),
        ({'state_dict': {}, 'meta': {}}, 'nothing'),
        ({'state_dict': None}, 'NoneType'),
        ({'state_dict': {1: torch.zeros(1)}}, 'dict'),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, found):
    path = save(tmp_path, content)
    for load in (load_checkpoint_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(CheckpointError, match=f'wrong checkpoint.* {found} '):
            load(str(path))


def test_a_damaged_directory_of_an_archive_is_told(tmp_path):
    path = save(tmp_path, WEIGHTS)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'PK\x01\x02', b'PK\x01\x07'))
    with pytest.raises(CheckpointError, match='cannot be read .* get the file again'):
        load_checkpoint_file(path)


def test_a_path_that_the_system_refuses_is_not_taken_for_a_missing_file(tmp_path):
    # As a file in a folder of somebody else is, for users other than root.
    with pytest.raises(CheckpointError, match=r'cannot be read \(File name too long\)'):
        load_checkpoint_file(tmp_path / ('a' * 300))


@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='of Linux')
def test_a_file_that_the_system_refuses_to_read_is_told():
    with pytest.raises(CheckpointError, match=r'cannot be read \(Input/output error\)'):
        load_checkpoint_file('/proc/self/mem')


@pytest.mark.parametrize('seed', range(8))
def test_damaged_bytes_end_in_one_sentence(tmp_path, seed):
    path = save(
        tmp_path, {**WEIGHTS, 'x': np.arange(3)}, _use_new_zipfile_serialization=False
    )
    raw = bytearray(path.read_bytes())
    places = np.random.default_rng(seed).integers(20, len(raw), 3)
    for place in places:
        raw[place] ^= 1 << seed % 8
    path.write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        load_checkpoint_file(path)
