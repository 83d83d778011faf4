"""What is read more safely, and what is read at all, by the reader of this wing."""

import argparse
import codecs
import copy
import pickle
import re
import shutil
import types
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmdet_rfdetr.checkpoints import (
    load_checkpoint_file,
    trust_checkpoint,
)
from mmdet_rfdetr.errors import CheckpointError, UntrustedCheckpointError

from ..test_checkpoints.official import official_state
from ..test_checkpoints.test_loading import WEIGHTS, Payload, save, touch


class Unknown:
    """A harmless class that is not on the list."""


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
    'content', [b'', b'<!DOCTYPE html>', b'version https://git-lfs.github.com/spec/v1']
)
def test_what_is_no_checkpoint_is_told(tmp_path, content):
    path = tmp_path / 'checkpoint.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(repr(content[:10])[:-1])):
        load_checkpoint_file(path)
