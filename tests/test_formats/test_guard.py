"""No file that a tool reads runs code."""

import argparse
import io
import json
import pickle

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio.io import file_handlers
from mmengine.structures import InstanceData

from mmdet_rfdetr.checkpoints import trust_checkpoint
from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.formats.guard import load_pickle, no_code_in_files
from mmdet_rfdetr.formats.unpickler import RefusedError


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.code = f'open({str(path)!r}, "w").close()'

    def __reduce__(self):
        return exec, (self.code,)


def write_pickle(path, payload):
    path.write_bytes(pickle.dumps([payload]))


def write_array(path, payload):
    with path.open('wb') as file:
        np.save(file, np.array([payload], dtype=object), allow_pickle=True)


def write_yaml(path, payload):
    path.write_text(f'a: !!python/object/apply:exec [{json.dumps(payload.code)}]')


def write_checkpoint(path, payload):
    torch.save({'state_dict': payload}, path)


READERS = {
    'pkl': (write_pickle, mmengine.load),
    'pickle': (write_pickle, mmengine.load),
    'yaml': (write_yaml, mmengine.load),
    'yml': (write_yaml, mmengine.load),
    'npy': (write_array, lambda path: np.load(path, allow_pickle=True)),
    'np': (write_pickle, lambda path: np.load(path, None, True)),
    'pth': (write_checkpoint, lambda path: torch.load(path)),
    'pt': (write_checkpoint, lambda path: torch.load(path, weights_only=False)),
}


@pytest.mark.parametrize('kind', READERS)
def test_a_tool_runs_no_code_from_a_file(tmp_path, kind):
    write, read = READERS[kind]
    path, trace = tmp_path / f'file.{kind}', tmp_path / 'trace'
    write(path, Payload(trace))
    before = (mmengine.load, np.load, torch.load, dict(file_handlers))
    with no_code_in_files():
        with pytest.raises(CheckpointError, match='--trust-checkpoint'):
            read(path)
        assert not trace.exists()
        with trust_checkpoint():
            read(path)
        assert trace.exists()
    assert before == (
        *(mmengine.load, np.load, torch.load),
        file_handlers,
    )


def test_tools_read_plain_files_as_before(tmp_path):
    results = [{'a': torch.arange(3), 'b': np.float32(1), 'c': InstanceData(d=[1])}]
    mmengine.dump(results, tmp_path / 'a.pkl')
    (tmp_path / 'a.yaml').write_text('a: !!python/tuple [1, 2]')
    np.save(tmp_path / 'a.npy', np.arange(3))
    torch.save(
        {'meta': {'cfg': 'a = 1'}, 'x': {'y': np.float64(1)}}, tmp_path / 'a.pth'
    )
    with no_code_in_files():
        (read,) = mmengine.load(tmp_path / 'a.pkl')
        assert torch.equal(read['a'], results[0]['a'])
        assert read['b'] == 1
        assert read['c'].d == [1]
        assert mmengine.load(tmp_path / 'a.yaml') == {'a': (1, 2)}
        assert Config.fromfile(tmp_path / 'a.yaml').a == (1, 2)
        assert np.load(tmp_path / 'a.npy', allow_pickle=True).tolist() == [0, 1, 2]
        assert torch.load(tmp_path / 'a.pth')['x']['y'] == 1


def test_a_config_in_an_old_checkpoint_is_not_handed_to_tools(tmp_path):
    """upgrade_model_version.py of MMDetection would run it."""
    torch.save({'meta': {'config': 'a = 1'}, 'state_dict': {}}, tmp_path / 'a.pth')
    with (
        no_code_in_files(),
        pytest.raises(CheckpointError, match='a config, which is code'),
    ):
        torch.load(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('content', [b'', b'\x80\x04', b'\x80\x02]q', b'I1\n', b'x'])
def test_a_damaged_pickle_is_told(tmp_path, content):
    (tmp_path / 'a.pkl').write_bytes(content)
    with no_code_in_files(), pytest.raises(CheckpointError, match='cannot be read'):
        mmengine.load(tmp_path / 'a.pkl')


ALIASES = ''.join(f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n' for i in range(1, 30))


@pytest.mark.parametrize(
    'text', ['a0: &a0 [x, x]\n' + ALIASES, '[' * 5000, '[', 'a: *b']
)
def test_a_text_that_never_ends_is_told(tmp_path, text):
    (tmp_path / 'a.yaml').write_text(text)
    with no_code_in_files(), pytest.raises(CheckpointError, match='cannot be read'):
        Config.fromfile(tmp_path / 'a.yaml')


def test_latin_pickles_of_python_2_load(tmp_path):
    raw = b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\nscalar\np2\n(cnumpy\ndtype\np3\n"
    raw += b"(S'f8'\np4\nI0\nI1\ntp5\nRp6\n(I3\nS'<'\np7\nNNNI-1\nI-1\nI0\ntp8\nbS'"
    raw += b"\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?'\np9\ntp10\nRp11\ns."
    path = tmp_path / 'a.pkl'
    path.write_bytes(raw)
    with path.open('rb') as file:
        assert load_pickle(file, encoding='latin1') == {'a': 1.0}


@pytest.mark.parametrize(
    'raw',
    [
        pickle.dumps(argparse.Namespace, 2)[:-1] + b'}X\x01\x00\x00\x00aK\x01sb.',
        b'\x80\x04cmmengine.logging.history_buffer\nHistoryBuffer.min\n(tR.',
    ],
    ids=['filled', 'called'],
)
def test_classes_and_functions_are_neither_filled_nor_called(raw):
    """Filling a function or a class would change it for the whole process."""
    with pytest.raises(RefusedError):
        load_pickle(io.BytesIO(raw))


@pytest.mark.parametrize('protocol', range(6))
def test_results_of_tools_are_read_in_every_protocol(protocol):
    results = [
        {
            'img_id': 'a',
            'img_shape': (3, 4),
            'pred_instances': {
                'bboxes': torch.arange(8.0).view(2, 4)[:, :3],
                'scores': np.array([0.5, 1], np.float32),
                'masks': [{'size': [2, 3], 'counts': b'\x00\xff'}],
                'labels': torch.tensor([1, 2]),
            },
        }
    ]
    read = load_pickle(io.BytesIO(pickle.dumps(results, protocol)))[0]
    expected, found = results[0]['pred_instances'], read['pred_instances']
    assert read['img_shape'] == (3, 4)
    assert torch.equal(found['bboxes'], expected['bboxes'])
    assert found['scores'].tolist() == [0.5, 1]
    assert found['masks'] == expected['masks']
