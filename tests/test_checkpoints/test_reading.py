"""What the core reads by itself, whatever else may take the place of its reader."""

import argparse
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdet_rfdetr.checkpoints.loading import read_weights
from mmdet_rfdetr.errors import UntrustedCheckpointError

WEIGHTS = {'layer.weight': torch.arange(6.0).view(2, 3)}


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def read(tmp_path, content, **options):
    path = tmp_path / 'weights.pth'
    torch.save(content, path, **options)
    return read_weights(path, None)


@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_of_mmengine_and_official_arguments(tmp_path, zipped):
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        'state_dict': OrderedDict(WEIGHTS),
        'meta': {'dataset_meta': ConfigDict(classes=('a',), x=dict(y=1))},
        'message_hub': {'loss': log, 'mAP': np.float64(0.5), 'n': np.int64(3)},
        'args': argparse.Namespace(num_queries=3),
    }
    before = torch.serialization.get_safe_globals()
    loaded = read(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert torch.equal(loaded['state_dict']['layer.weight'], WEIGHTS['layer.weight'])
    assert loaded['meta'] == {'dataset_meta': {'classes': ('a',), 'x': {'y': 1}}}
    assert loaded['args'] == content['args']
    again = loaded['message_hub']['loss']
    assert (again.mean(), again.statistics('max')) == (1.5, 2.0)
    assert loaded['message_hub'].items() >= {'mAP': 0.5, 'n': 3}.items()
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize(
    'array', [np.arange(6, dtype='>i4').reshape(2, 3), np.array(['a', 'bc']), np.eye(2)]
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    loaded = read(tmp_path, {'x': array})['x']
    np.testing.assert_array_equal(loaded, array)


def test_an_array_takes_no_more_than_its_numbers(tmp_path):
    assert read(tmp_path, {'x': Payload(np.ndarray, (10**12,))})['x'].size == 0


def test_code_is_refused_by_name_and_has_not_run(tmp_path):
    trace = tmp_path / 'trace'
    payload = Payload(exec, f'open({str(trace)!r}, "w").close()')
    with pytest.raises(UntrustedCheckpointError, match='do not need exec'):
        read(tmp_path, {**WEIGHTS, 'args': payload})
    assert not trace.exists()


@pytest.mark.parametrize(
    'payload',
    [
        Payload(np.ndarray, (1,), Payload(np.dtype, 'O8'), b'A' * 8),
        Payload(np.dtype, 'S8,O'),
        Payload(getattr, HistoryBuffer, '__init__'),
        np.array([object()], dtype=object),
    ],
)
def test_no_memory_that_a_file_names_is_read(tmp_path, payload):
    with pytest.raises(UntrustedCheckpointError):
        read(tmp_path, {**WEIGHTS, 'x': payload})
