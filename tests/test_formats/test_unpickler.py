"""Small files that would take much memory or time, or change what is not theirs."""

import argparse
import codecs
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError

WEIGHTS = {'layer.weight': torch.arange(6.0).view(2, 3)}


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


class Filled(Call):
    """The same, and what the object is filled with."""

    def __init__(self, state, function, *args):
        self.reduced = function, args, state


def doubled(kind, levels=40, value='a'):
    for _ in range(levels):
        value = kind((value, value))
    return value


def copies(function, value, count=2000):
    return [Call(function, value) for _ in range(count)]


def chained(value=b'a', levels=40):
    """A text that grows by a half, again and again."""
    for _ in range(levels):
        value = Call(codecs.encode, value, 'hex')
    return value


def tensor(storage, *place):
    return Call(torch._utils._rebuild_tensor_v2, storage, *place, False, OrderedDict())


NUMBERS = torch.zeros(4)._typed_storage()
LARGE = 'it unfolds to more than it holds'
BOMBS = {
    'bytearray': (Call(bytearray, 2**31 - 1), 'builtins.bytearray'),
    'new tensor': (Call(torch.FloatTensor, 2**40), 'torch.FloatTensor'),
    'grown tensor': (tensor(NUMBERS, 0, (2**40,), (1,)), 'larger than its numbers'),
    'far tensor': (tensor(NUMBERS, 2**40, (1,), (1,)), 'larger than its numbers'),
    'negative': (tensor(NUMBERS, 3, (4,), (-1,)), 'cannot be read'),
    'lists': (doubled(list), LARGE),
    'tuples': (doubled(tuple), LARGE),
    'dicts': (doubled(lambda pair: dict(enumerate(pair))), LARGE),
    'namespaces': (doubled(lambda pair: argparse.Namespace(a=pair)), LARGE),
    'log': (Filled({'_log_history': doubled(list)}, HistoryBuffer), LARGE),
    'attributes': (
        doubled(lambda pair: Filled({'_metadata': pair}, OrderedDict)),
        LARGE,
    ),
    'key': ({doubled(tuple, 2): 1}, 'a key of a dict is nested'),
    'set': (Call(set, [doubled(tuple)]), 'a key of a dict is nested'),
    'pairs': (Call(OrderedDict, [[doubled(tuple), 1]]), 'a key of a dict is nested'),
    'settings': (Call(ConfigDict, [[doubled(tuple), 1]]), 'a ConfigDict of something'),
    'log of lists': (Call(HistoryBuffer, doubled(list), [1, 1]), 'a call of'),
    'codec': (chained(), '_codecs.encode'),
    'sets': (copies(set, list(range(2000))), LARGE),
    'size': (copies(torch.Size, tuple(range(2000))), LARGE),
    'digits': (10**5000, 'an instruction of its pickle'),
    'deep': (doubled(lambda pair: [pair[0]], 150), 'nests deeper than 100 levels'),
}


@pytest.mark.parametrize('name', BOMBS)
@pytest.mark.parametrize('zipped', [True, False])
def test_a_file_takes_no_more_than_it_deserves(tmp_path, name, zipped):
    bomb, text = BOMBS[name]
    path = tmp_path / 'weights.pth'
    torch.save({**WEIGHTS, 'x': bomb}, path, _use_new_zipfile_serialization=zipped)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=text):
            load_checkpoint_file(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_list_that_holds_itself_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    torch.save({**WEIGHTS, 'x': endless}, tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='nests deeper than 100 levels'):
        load_checkpoint_file(tmp_path / 'weights.pth')


def test_what_is_shared_by_right_is_loaded(tmp_path):
    betas = (0.9, 0.999)
    groups = [{'lr': 0.1, 'betas': betas, 'params': [i]} for i in range(200)]
    torch.save({**WEIGHTS, 'groups': groups}, tmp_path / 'weights.pth')
    assert load_checkpoint_file(tmp_path / 'weights.pth')['groups'] == groups


def test_a_file_of_the_old_format_has_its_numbers(tmp_path):
    """torch would make room for as many as the file says, and fill none."""
    path = tmp_path / 'weights.pth'
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'K\x06Nt', b'J\x00\x00\x00\x40Nt'))
    assert path.read_bytes() != raw
    with pytest.raises(CheckpointError, match='more numbers than it holds'):
        load_checkpoint_file(path)


def test_a_file_does_not_change_the_logs_of_this_process(tmp_path):
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    methods = dict(HistoryBuffer._statistics_methods)
    state = {'statistics_methods': {'mean': 'x'}, 'max_length': 3}
    content = {**WEIGHTS, 'x': Filled(state, HistoryBuffer)}
    torch.save(content, tmp_path / 'weights.pth')
    load_checkpoint_file(tmp_path / 'weights.pth')
    assert HistoryBuffer._statistics_methods == methods
    assert log.statistics('mean') == 1.5


def test_every_changed_byte_of_the_content_is_noticed(tmp_path):
    path = tmp_path / 'weights.pth'
    content = {'state_dict': {'a': torch.arange(64.0)}, 'meta': {'epoch': 12}}
    torch.save(content, path)
    raw = path.read_bytes()
    noticed, alike = 0, 0
    for place in range(4, len(raw), 9):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        try:
            loaded = load_checkpoint_file(path)
        except CheckpointError:
            noticed += 1
        else:  # in what archives fill their gaps with
            assert torch.equal(loaded['state_dict']['a'], content['state_dict']['a'])
            assert loaded['meta'] == content['meta']
            alike += 1
    assert noticed > alike
    place = raw.index(np.float32(40).tobytes())
    path.write_bytes(raw[:place] + b'\x01' + raw[place + 1 :])
    with pytest.raises(CheckpointError, match='/data/0 is not what was saved: get the'):
        load_checkpoint_file(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_tensors_of_every_kind_load(tmp_path, zipped):
    state = {
        str(dtype): torch.arange(6).view(2, 3).to(dtype)[:, 1:]
        for dtype in (
            *(torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.bool),
            *(torch.int64, torch.complex64),
            # torch itself does not read these in its old format.
            *((torch.uint16, torch.float8_e4m3fn) if zipped else ()),
        )
    }
    state['conjugate'] = state['torch.complex64'].conj()
    state['parameter'] = torch.nn.Parameter(torch.ones(2))
    state['empty'], state['number'] = torch.zeros(0, 3), torch.tensor(2.0)
    path = tmp_path / 'weights.pth'
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint_file(path)
    for name, value in state.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert str(loaded[name]) == str(value)


@pytest.mark.parametrize('protocol', range(2, 6))
def test_logs_load_in_every_protocol(tmp_path, protocol):
    content = {**WEIGHTS, 'log': HistoryBuffer([1.0, 2.0], [1, 1])}
    torch.save(content, tmp_path / 'weights.pth', pickle_protocol=protocol)
    log = load_checkpoint_file(tmp_path / 'weights.pth')['log']
    assert log.mean() == 1.5


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'set_crc32_options'), reason='torch before 2.6'
)
def test_a_file_that_was_written_without_checksums_loads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(WEIGHTS, tmp_path / 'weights.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint_file(tmp_path / 'weights.pth').keys() == WEIGHTS.keys()


def test_an_entry_that_begins_behind_the_file_is_named(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(WEIGHTS, path)
    raw = bytearray(path.read_bytes())
    place = raw.rindex(b'PK\1\2') + 42  # where the list of entries says that it begins
    raw[place : place + 4] = (2**30).to_bytes(4, 'little')
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match='is not what was saved: get the file'):
        load_checkpoint_file(path)
