"""Reading pickles that hold nothing but what a checkpoint needs.

A pickle is a program that calls functions by name. Tensors and plain values need a
short list of them; official files also hold their arguments in a namespace, and a
checkpoint of mmengine holds the history of its log. Everything else is refused.

Where a file names a function that could do harm, or take any amount of memory, a
function of this module stands in for it and does the one harmless thing.
"""

import argparse
import functools
import pickle
import reprlib
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import HistoryBuffer
from torch import _weights_only_unpickler

from ..checkpoints import stand_ins
from ..checkpoints.stand_ins import Array, NumberType, RefusedError, read_numbers

_MAX_DEPTH = 100


def _array_of_bytes(raw: bytes, dtype: NumberType, shape: tuple, order: str):
    """How protocol 5 says an array."""
    array = read_numbers(raw, dtype, shape[::-1] if order == 'F' else shape)
    return array.T if order == 'F' else array


def _bytes_of_text(text: str, encoding: str) -> bytes:
    """How protocol 2 of pickle says bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise RefusedError(f'_codecs.encode to {reprlib.repr(encoding)}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """How the same protocol says bytes of which there are none, of an empty array."""
    return b''


def _set(items: list) -> set:
    _refuse_nested_keys(items)
    return set(items)


def _ordered_dict(items: list = ()) -> OrderedDict:
    _refuse_nested_keys(key for key, _ in items)
    return OrderedDict(items)


def _tensor(rebuild: Callable, storage, offset: int, size: tuple, stride: tuple, *rest):
    """A tensor of numbers that its storage has; torch would make room for more."""
    dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    dtype = dtypes[0] if dtypes else storage.dtype  # newer types have no storage
    numbers = storage._untyped_storage.nbytes() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and not 0 <= offset <= last < numbers:
        raise pickle.UnpicklingError('a tensor is larger than its numbers')
    return rebuild(storage, offset, size, stride, *rest)


# What may only be named, what may be made without arguments and then filled, and what
# may be called.
_NAMES = {'numpy.ndarray': None, 'torch.storage.UntypedStorage': torch.UntypedStorage}
# As protocol 4 names what getattr does, for the log; the file's are not taken.
for _name in stand_ins.STATISTICS:
    _NAMES[f'mmengine.logging.history_buffer.HistoryBuffer.{_name}'] = None
CLASSES = {
    'argparse.Namespace': argparse.Namespace,
    'types.SimpleNamespace': types.SimpleNamespace,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
}
FUNCTIONS = {
    **stand_ins.FUNCTIONS,
    'builtins.bytes': _no_bytes,
    'builtins.set': _set,
    'builtins.complex': complex,
    'collections.OrderedDict': _ordered_dict,
    '_codecs.encode': _bytes_of_text,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
}
for _package in ('numpy.core', 'numpy._core'):  # of both majors
    FUNCTIONS[f'{_package}.numeric._frombuffer'] = _array_of_bytes
for _name in ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3'):
    _rebuild = getattr(torch._utils, _name)
    FUNCTIONS[f'torch._utils.{_name}'] = functools.partial(_tensor, _rebuild)


def _refuse_nested_keys(keys: Iterable) -> None:
    """Refuse nested keys: a hash follows every reference in a tuple, each time anew."""
    flat = (tuple, frozenset)
    for key in keys:
        if isinstance(key, flat) and any(isinstance(part, flat) for part in key):
            raise pickle.UnpicklingError('a key of a dict is nested')


def _look_at_keys(code: bytes, keys: slice) -> Callable:
    """An instruction, behind a look at the keys among what it takes from the stack."""
    load = pickle._Unpickler.dispatch[code[0]]

    def load_checked(unpickler) -> None:
        _refuse_nested_keys(unpickler.stack[keys])
        load(unpickler)

    return load_checked


def _refuse_instruction(_unpickler) -> None:
    raise RefusedError('an instruction of its pickle')


# Calls by other ways, objects of the process, and numbers of 5,000 digits: what no file
# of numbers has.
_REFUSED = (
    *('INST', 'OBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4', 'PERSID', 'LONG4'),
    *('NEXT_BUFFER', 'READONLY_BUFFER'),
)


class Unpickler(pickle._Unpickler):
    """Makes tensors, numbers, text and containers, and what is on the list.

    ``torch.load(weights_only=True)`` reads by it inside :func:`harmless_classes`. Its
    own would take ``bytearray(2**31)``, NumPy types of objects, and calls that leave
    more than the file holds.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    limit = 0
    """Bytes of the file."""
    classes = CLASSES
    functions = FUNCTIONS

    def __init__(self, file, **options) -> None:
        super().__init__(file, **options)
        self._copies_left = 2 * self.limit + 1000
        self._numbers_left, self._storages = self.limit, set()

    def find_class(self, module: str, name: str):
        """Look a name up in the list."""
        if self.proto < 3:  # as Python 2 called it
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            module = IMPORT_MAPPING.get(module, module)
        path = f'{module}.{name}'
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        for known in (_NAMES, self.classes, self.functions):
            if path in known:
                return known[path]
        raise RefusedError(path)

    def load_bytearray8(self) -> None:
        """Make a byte array of what is there; Python's own would make room first."""
        size = int.from_bytes(self.read(8), 'little')
        self.append(bytearray(self.read(size)))

    def load_reduce(self) -> None:
        """Call a function of the list, or make an object of a class."""
        args, function = self.stack.pop(), self.stack.pop()
        self._count_copies(args)
        if any(function is known for known in self.functions.values()):
            self.append(function(*args))
        else:
            self._make(function, args)

    def load_newobj(self) -> None:
        """Make an object of a class of the list."""
        args, kind = self.stack.pop(), self.stack.pop()
        self._make(kind, args)

    def _make(self, kind, args) -> None:
        if args or not any(kind is known for known in self.classes.values()):
            raise RefusedError(f'a call of {reprlib.repr(kind)}')
        self.append(kind.__new__(kind))

    def load_build(self) -> None:
        """Fill an object with what the file says of it."""
        state, target = self.stack.pop(), self.stack[-1]
        kind = type(target)
        if kind in (NumberType, Array):
            self._count_copies(state)
            target.__setstate__(state)
            return
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise pickle.UnpicklingError(f'a {kind.__name__} of something else')
        # Another "get" would hide what a dict has.
        is_metadata = kind is OrderedDict and state.keys() <= {'_metadata'}
        if not is_metadata and kind not in self.classes.values():
            raise RefusedError(f'attributes of a {kind.__name__}')
        if kind is HistoryBuffer:
            # They would go into the class, for the logs of this process.
            state.pop('statistics_methods', None)
        target.__dict__.update(state)

    def load_binpersid(self) -> None:
        """Let torch make the storage of a tensor; all are no larger than the file."""
        kind, storage_type, key, _, numel, *view = pid = self.stack[-1]
        if kind not in ('storage', b'storage') or any(view):
            raise RefusedError(f'a reference to {reprlib.repr(pid)}')
        if type(key) not in (str, bytes, int) or numel < 0:
            raise pickle.UnpicklingError('the name of a storage is damaged')
        if key not in self._storages:
            self._storages.add(key)
            dtype = getattr(storage_type, 'dtype', torch.uint8)
            self._numbers_left -= numel * dtype.itemsize
        if self._numbers_left < 0:
            raise pickle.UnpicklingError('it names more numbers than it holds')
        super().load_binpersid()

    def _count_copies(self, values: Iterable) -> None:
        """What is copied out of a file is no larger than the file."""
        kinds = (str, bytes, bytearray, list, tuple, dict, set)
        self._copies_left -= sum(len(x) for x in values if isinstance(x, kinds))
        if self._copies_left < 0:
            raise pickle.UnpicklingError('it unfolds to more than it holds')

    dispatch |= {
        **{ord(getattr(pickle, name)): _refuse_instruction for name in _REFUSED},
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.BINPERSID[0]: load_binpersid,
        pickle.DICT[0]: _look_at_keys(pickle.DICT, slice(None, None, 2)),
        pickle.SETITEM[0]: _look_at_keys(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _look_at_keys(pickle.SETITEMS, slice(None, None, 2)),
        pickle.ADDITEMS[0]: _look_at_keys(pickle.ADDITEMS, slice(None)),
        pickle.FROZENSET[0]: _look_at_keys(pickle.FROZENSET, slice(None)),
    }


@contextmanager
def harmless_classes(limit: int) -> Iterator[None]:
    """Let torch make nothing that is not on the list while it lasts.

    Args:
        limit: bytes of the file that is read.
    """
    of_torch = _weights_only_unpickler.Unpickler
    limited = type('Unpickler', (Unpickler,), {'limit': limit})
    _weights_only_unpickler.Unpickler = limited
    try:
        yield
    finally:
        _weights_only_unpickler.Unpickler = of_torch


def refuse_endless(loaded, limit: int) -> None:
    """Refuse values that go on for ever when one walks through them.

    A list that names one list twice, which does the same, and so on, is small in a
    file and in memory, but not in a text or a comparison.

    Args:
        loaded: what a file holds.
        limit: bytes of the file.

    Raises:
        pickle.UnpicklingError: they do.
    """
    left, levels = 4 * limit + 1000, [iter((loaded,))]
    while levels:
        for value in levels[-1]:
            left -= 1
            if left < 0:
                raise pickle.UnpicklingError('it unfolds to more than it holds')
            if parts := _parts(value):
                levels.append(iter(parts))
                break
        else:
            levels.pop()
        if len(levels) > _MAX_DEPTH:
            raise pickle.UnpicklingError(f'it nests deeper than {_MAX_DEPTH} levels')


def _parts(value) -> list:
    """What lies in a value, as far as it was filled by a file."""
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    inner = (
        [] if isinstance(value, type) else [*getattr(value, '__dict__', {}).values()]
    )
    return [*value, *value.values(), *inner] if isinstance(value, dict) else inner
