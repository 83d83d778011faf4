import argparse
import codecs
import contextlib
import copy
import os
import pickle
import re
import shutil
import types
import zipfile
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

from .official import official_state

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


class Unknown:
    """A harmless class that is not on the list."""


def save(tmp_path, content, **options):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'arguments',
    [
        argparse.Namespace(num_queries=3, class_names=['a', 'b']),
        types.SimpleNamespace(num_queries=3, class_names=['a', 'b']),
        {'num_queries': 3, 'class_names': ['a', 'b']},
    ],
)
def test_official_arguments_of_every_kind_are_read(tmp_path, arguments, zipped):
    content = {'model': official_state(), 'args': arguments}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_file(path)
    info = loaded['state_dict']._metadata['']['rfdetr']
    assert info == {'num_queries': 3, 'group_detr': None, 'class_names': ['a', 'b']}
    assert loaded['meta']['dataset_meta'] == {'classes': ('a', 'b')}


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


def test_torch_keeps_its_own_list(tmp_path):
    path = save(tmp_path, {'args': argparse.Namespace(a=1), **WEIGHTS})
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        load_checkpoint_file(path)
        after = torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert set(after) == {*before, argparse.Namespace}


@pytest.mark.parametrize('zipped', [True, False])
def test_a_payload_is_refused_by_name_and_has_not_run(tmp_path, zipped):
    trace = tmp_path / 'trace'
    content = {**WEIGHTS, 'args': touch(trace)}
    path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UntrustedCheckpointError, match=r'need builtins\.exec\.'
    ) as caught:
        load_checkpoint_file(path)
    assert '--trust-checkpoint' in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), 'the payload would not have worked anyway'


@pytest.mark.parametrize(
    ('protocol', 'text'), [(2, 'nothing in it has run'), (4, 'is no checkpoint')]
)
def test_a_bare_pickle_is_refused(tmp_path, protocol, text):
    trace = tmp_path / 'trace'
    path = tmp_path / 'checkpoint.pth'
    path.write_bytes(pickle.dumps(touch(trace), protocol=protocol))
    with pytest.raises(CheckpointError, match=text):
        load_checkpoint_file(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ('payload', 'name'),
    [
        (Payload(shutil.rmtree, 'nowhere'), 'shutil.rmtree'),
        (Payload(getattr, HistoryBuffer, '__init__'), 'builtins.getattr'),
        (Payload(getattr, dict, 'mean'), 'builtins.dict'),
        (Payload(getattr, np.ndarray, 'tofile'), 'builtins.getattr'),
        (Unknown(), 'Unknown'),
        (np.array([object()], dtype=object), 'numpy.dtype'),
    ],
)
def test_other_objects_are_refused_by_name(tmp_path, payload, name):
    path = save(tmp_path, {**WEIGHTS, 'args': payload})
    with pytest.raises(UntrustedCheckpointError, match=name):
        load_checkpoint_file(path)


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


def test_safetensors_load(tmp_path):
    path = tmp_path / 'model.safetensors'
    save_file(WEIGHTS, path)
    loaded = load_checkpoint_file(path)
    assert torch.equal(loaded['state_dict']['layer.weight'], WEIGHTS['layer.weight'])


@pytest.mark.parametrize(
    'map_location', [None, 'cpu', torch.device('cpu'), lambda storage, _: storage]
)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_devices_are_named_as_for_torch(tmp_path, map_location, suffix):
    path = tmp_path / f'model{suffix}'
    (save_file if suffix == '.safetensors' else torch.save)(WEIGHTS, path)
    assert load_checkpoint_file(path, map_location=map_location)


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
    'content', [b'', b'<!DOCTYPE html>', b'version https://git-lfs.github.com/spec/v1']
)
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    path = tmp_path / 'checkpoint.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(repr(content[:10])[:-1])):
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


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    path = save(tmp_path, {'state_dict': {'a': torch.zeros(10**6)}})
    packed = tmp_path / 'packed.pth'
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert len(torch.load(packed, weights_only=True)['state_dict']['a']) == 10**6
    with pytest.raises(CheckpointError, match=r'would take 400\d{4}'):
        load_checkpoint_file(packed)
    with trust_checkpoint(), pytest.raises(CheckpointError, match='would take'):
        load_checkpoint_file(packed)


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    path = save(tmp_path, {'state_dict': {'a': torch.zeros(1000)}})
    with zipfile.ZipFile(path, 'a') as archive:
        entry = next(e for e in archive.infolist() if e.file_size == 4000)
        for index in range(9):
            twin = copy.copy(entry)
            twin.filename = f'{entry.filename}{index}'
            archive.filelist.append(twin)
        archive.writestr('end', '')  # makes it write its directory again
    with pytest.raises(CheckpointError, match='would take 4'):
        load_checkpoint_file(path)


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


@pytest.mark.parametrize(
    'text', ['[', '[' * 10**5, '7', '{"official": 7}'], ids=lambda text: text[:20]
)
def test_odd_metadata_of_safetensors_are_told(tmp_path, text):
    path = tmp_path / 'model.safetensors'
    save_file(WEIGHTS, path, {'rfdetr': text})
    with pytest.raises(CheckpointError, match='cannot be read .* get the file again'):
        load_checkpoint_file(path)


def test_metadata_of_safetensors_do_not_replace_weights(tmp_path):
    path = tmp_path / 'model.safetensors'
    save_file(official_state(), path, {'rfdetr': '{"official": {"model": {"a": 1}}}'})
    assert 'class_embed.weight' in load_checkpoint_file(path)['state_dict']


def test_bytes_as_old_pickles_say_them(tmp_path):
    """torch before 2.5 needs the stand-in for the log of mmengine's checkpoints."""
    path = save(tmp_path, {**WEIGHTS, 'x': Payload(codecs.encode, 'a\xff', 'latin1')})
    assert load_checkpoint_file(path)['x'] == b'a\xff'
    path = save(tmp_path, {**WEIGHTS, 'x': Payload(codecs.encode, 'a', 'rot13')})
    with pytest.raises(UntrustedCheckpointError, match='rot13'):
        load_checkpoint_file(path)


# What rebuilds a NumPy number, under the path of the installed major.
SCALAR = np.float32(0).__reduce__()[0]


def pointer_array():
    """An array whose element is whatever lies at an address that the file names."""
    return Payload(np.ndarray, (1,), Payload(np.dtype, 'O8'), b'A' * 8)


class Swollen:
    """A type of eight bytes of which the file says that they are 10^9."""

    def __reduce__(self):
        state = (3, '|', None, ('a',), {'a': (np.dtype('S8'), 0)}, 10**9, 1, 0)
        return np.dtype, ('S8', False, True), state


@pytest.mark.parametrize(
    'payload',
    [
        pointer_array(),
        Payload(np.ndarray, (10**12,)),
        Payload(np.dtype, 'O8'),
        Payload(np.dtype, 'S8,O'),
        Swollen(),
        Payload(SCALAR, HistoryBuffer(), b'A' * 8),
    ],
    ids=('pointer', 'huge', 'object', 'record', 'swollen', 'scalar'),
)
def test_numpy_reads_no_memory_that_a_file_names(tmp_path, payload):
    path = save(tmp_path, {**WEIGHTS, 'x': payload})
    with pytest.raises(UntrustedCheckpointError, match='nothing in it has run'):
        load_checkpoint_file(path)


@pytest.mark.parametrize(
    'array',
    [
        np.arange(6, dtype='>i4').reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(['a', 'bc']),
        np.array([True, False]),
        np.zeros((0, 3)),
        np.float32(0.5),
        np.bool_(True),
    ],
    ids=str,
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    loaded = load_checkpoint_file(save(tmp_path, {**WEIGHTS, 'x': array}))['x']
    np.testing.assert_array_equal(loaded, array)
    assert loaded.dtype == array.dtype.newbyteorder('=')
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(again, array)
    assert type(again) is type(array)


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
