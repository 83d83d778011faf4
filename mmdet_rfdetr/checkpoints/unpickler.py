"""Reading pickles that hold nothing but what is on the list of ``safe_pickle``."""

import importlib
import io
import pickle
import reprlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from mmengine.logging import HistoryBuffer
from torch import _weights_only_unpickler

from .safe_pickle import (
    CLASSES,
    FUNCTIONS,
    STRUCTURES,
    RefusedError,
    history_statistic,
    refuse_deep_keys,
)

_MAX_DEPTH = 100
_limit = ContextVar('limit', default=0)


def _codes(*names: str) -> set[int]:
    return {getattr(pickle, name)[0] for name in names}


def _look_at_keys(code: bytes, keys: slice) -> Callable:
    """An instruction, behind a look at the keys among what it takes from the stack."""
    load = pickle._Unpickler.dispatch[code[0]]

    def load_checked(unpickler) -> None:
        refuse_deep_keys(unpickler.stack[keys])
        load(unpickler)

    return load_checked


class Unpickler(pickle._Unpickler):
    """Makes tensors, numbers, text and containers, and what is on the list.

    ``torch.load(weights_only=True)`` reads by it inside :func:`harmless_classes`. Its
    own would take ``bytearray(2**31)``, and calls that leave more than the file holds.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file, **options) -> None:
        super().__init__(file, **options)
        limit = _limit.get()
        self._copies_left = 2 * limit + 1000
        self._numbers_left, self._storages = limit, set()
        self._others = _allowed_by_others()
        self._classes = set(map(id, CLASSES.values()))
        self._functions = {
            id(function) for function in (*FUNCTIONS.values(), *self._others.values())
        }

    def find_class(self, module: str, name: str):
        """Look a name up in the list."""
        if self.proto < 3:  # as Python 2 called it
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            module = IMPORT_MAPPING.get(module, module)
        path = f'{module}.{name}'
        if path == 'torch.storage.UntypedStorage':  # a name of a kind, not to be called
            return torch.UntypedStorage
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        owner, _, statistic = path.rpartition('.')
        if CLASSES.get(owner) is HistoryBuffer:  # as protocol 4 names what getattr does
            return history_statistic(HistoryBuffer, statistic)
        for known in (CLASSES, FUNCTIONS, self._others):
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
        if id(function) in self._classes and not args:
            self.append(function.__new__(function))
        elif id(function) in self._functions:
            self.append(function(*args))
        else:
            raise RefusedError(f'a call of {reprlib.repr(function)}')

    def load_newobj(self) -> None:
        """Make an object of a class of the list."""
        args, kind = self.stack.pop(), self.stack.pop()
        if id(kind) in map(id, self._others.values()):
            self.append(kind.__new__(kind, *args))
        elif not args and (id(kind) in self._classes or _is_structure(kind)):
            self.append(kind.__new__(kind))
        else:
            raise RefusedError(f'an object of {reprlib.repr(kind)}')

    def load_build(self) -> None:
        """Fill an object with what the file says of it."""
        state, target = self.stack.pop(), self.stack[-1]
        kind = type(target)
        if id(kind) in self._functions and hasattr(target, '__setstate__'):
            self._count_copies(state)
            target.__setstate__(state)
            return
        known = (OrderedDict, *CLASSES.values(), *self._others.values())
        if kind not in known and not _is_structure(kind):
            raise RefusedError(f'attributes of a {kind.__name__}')
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise pickle.UnpicklingError(f'a {kind.__name__} of something else')
        if kind is OrderedDict and state.keys() - {'_metadata'}:
            # Another "get" would hide what the dict has.
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
        self._copies_left -= sum(
            len(value) for value in values if isinstance(value, kinds)
        )
        if self._copies_left < 0:
            raise pickle.UnpicklingError('it unfolds to more than it holds')

    def refuse(self) -> None:
        """Stop at an instruction that no file of numbers has."""
        raise RefusedError('an instruction of its pickle')

    # Calls by other ways, objects of the process, and numbers of 5,000 digits.
    dispatch |= dict.fromkeys(
        _codes(
            *('INST', 'OBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4', 'PERSID', 'LONG4'),
            *('NEXT_BUFFER', 'READONLY_BUFFER'),
        ),
        refuse,
    )
    dispatch |= {
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


class _ResultsUnpickler(Unpickler):
    """Makes the structures of MMDetection's results as well.

    Not in checkpoints: they answer to a key as a dict does, and hold what is looked for
    in dicts.
    """

    def find_class(self, module: str, name: str):
        if f'{module}.{name}' in STRUCTURES:
            return getattr(importlib.import_module(module), name)
        return super().find_class(module, name)


def _is_structure(kind) -> bool:
    return isinstance(kind, type) and f'{kind.__module__}.{kind.__name__}' in STRUCTURES


def _allowed_by_others() -> dict:
    """What torch was told to take, by the user or by its own parts."""
    found = {}
    for thing in torch.serialization.get_safe_globals():
        if isinstance(thing, tuple):  # with a name of its own
            thing, path = thing
        else:
            path = f'{thing.__module__}.{thing.__qualname__}'
        found[path] = thing
    return found


def load_pickle(file, **options):
    """Read a pickle that is no checkpoint, such as results that a tool wrote.

    Args:
        file: opened for reading bytes.
        **options: As for :class:`pickle.Unpickler`.

    Raises:
        RefusedError: it holds what is not on the list; nothing in it has run.
        pickle.UnpicklingError: it is damaged, as many other errors say as well.
    """
    content = file.read()
    with harmless_classes(len(content)):
        loaded = _ResultsUnpickler(io.BytesIO(content), **options).load()
    check_unfolding(loaded, len(content))
    return loaded


@contextmanager
def harmless_classes(limit: int) -> Iterator[None]:
    """Let torch make nothing that is not on the list while it lasts.

    Args:
        limit: bytes of the file that is read.
    """
    token = _limit.set(limit)
    of_torch = _weights_only_unpickler.Unpickler
    _weights_only_unpickler.Unpickler = Unpickler
    try:
        yield
    finally:
        _weights_only_unpickler.Unpickler = of_torch
        _limit.reset(token)


def check_unfolding(loaded, limit: int) -> None:
    """Refuse values that go on for ever when one walks through them.

    A list that names one list twice, which does the same, and so on, is small in a
    file and in memory, but not in a text or a comparison.

    Args:
        loaded: what a file holds.
        limit: bytes of the file.

    Raises:
        pickle.UnpicklingError: they do.
    """
    counted = {}

    def count(value, above=0) -> tuple[int, int]:
        """Values inside of one, each as often as it is met, and levels below it."""
        if isinstance(value, dict):
            parts = [*value, *value.values(), *getattr(value, '__dict__', {}).values()]
        elif isinstance(value, list | tuple | set | frozenset):
            parts = value
        elif type(value) in CLASSES.values() or _is_structure(type(value)):
            parts = vars(value).values()
        else:
            return 1, 0
        if id(value) not in counted and above <= _MAX_DEPTH:
            inner = [count(part, above + 1) for part in parts]
            counted[id(value)] = (
                1 + sum(number for number, _ in inner),
                1 + max((levels for _, levels in inner), default=0),
            )
        number, levels = counted.get(id(value), (1, _MAX_DEPTH))
        if above + levels > _MAX_DEPTH:
            raise pickle.UnpicklingError(f'it nests deeper than {_MAX_DEPTH} levels')
        if number > _bound(limit):
            raise pickle.UnpicklingError('it unfolds to more than it holds')
        return number, levels

    count(loaded)


def _bound(limit: int) -> int:
    """How many values a file of so many bytes may come to."""
    return 4 * limit + 1000
