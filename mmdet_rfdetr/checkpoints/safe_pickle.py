"""The few classes that may come out of a checkpoint file.

``torch.load(weights_only=True)`` makes tensors and plain Python values only. Official
files also hold their arguments in a namespace, and a checkpoint of mmengine holds the
history of its log. Everything else is refused.

Where a file names a function that could do harm, ``builtins.getattr`` above all, a
function of this module stands in for it and does the one harmless thing.
"""

import argparse
import pickle
import re
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from mmengine.logging import HistoryBuffer
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
)


def _in_place_of(path: str) -> Callable[[Callable], Callable]:
    """Make torch take a function for the object that a file calls ``path``."""

    def rename(function: Callable) -> Callable:
        function.__module__, _, function.__name__ = path.rpartition('.')
        function.__qualname__ = function.__name__
        return function

    return rename


@_in_place_of('builtins.getattr')
def _history_statistic(owner: type, name: str) -> Callable:
    """The only attributes a checkpoint of mmengine asks for: statistics of a log."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {owner!r}, {name!r}')


@_in_place_of('mmengine.config.config.ConfigDict')
def _plain_dict(items: dict) -> dict:
    """Nested settings in a data set's metainfo."""
    return dict(items)


@_in_place_of('_codecs.encode')
def _bytes_of_text(text: str, encoding: str) -> bytes:
    """How Python 2's protocol of pickle says bytes; torch before 2.5 refuses it."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'GLOBAL _codecs.encode to {encoding!r}')
    return text.encode('latin1')


@_in_place_of('builtins.bytes')
def _no_bytes() -> bytes:
    """How the same protocol says bytes of which there are none, of an empty array."""
    return b''


@_in_place_of('numpy.dtype')
class _NumberType:
    """What a file says of a NumPy type: numbers or text, never objects.

    NumPy's own class would take objects, and let a file change the size of a type
    that is in use: both make it read memory that the file does not hold.
    """

    def __init__(self, code: str, *_flags: bool) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[biufcSU]\d{1,9}', code):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype of {code!r}')
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        order, *parts = state[1:5]
        if order not in ('<', '>', '|', '=') or any(part is not None for part in parts):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype with {state!r}')
        self.order = order

    def read(self, raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """Copy the numbers out of bytes, of which there are as many as they take."""
        dtype = np.dtype(self.code).newbyteorder(self.order)
        return np.frombuffer(raw, dtype).reshape(shape).copy()


@_in_place_of('numpy.ndarray')
class _Array(np.ndarray):
    """An array that a file fills by :meth:`__setstate__` and by nothing else."""

    def __new__(cls, *args, **_options) -> '_Array':
        raise pickle.UnpicklingError(f'GLOBAL numpy.ndarray{args!r}')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, raw = state
        if type(dtype) is not _NumberType:
            raise pickle.UnpicklingError(f'GLOBAL numpy.ndarray of {dtype!r}')
        array = dtype.read(raw, shape[::-1] if in_columns else shape)
        super().__setstate__((array.T if in_columns else array).__reduce__()[2])

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def _empty_array(kind: type, *_shape_and_code) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError(f'GLOBAL {kind!r} as an array')
    return np.empty(0).view(_Array)


def _scalar(dtype: _NumberType, raw: bytes) -> np.generic:
    if type(dtype) is not _NumberType:
        raise pickle.UnpicklingError(f'GLOBAL {dtype!r} as the type of a number')
    return dtype.read(raw, ())[()]


def _numpy_functions() -> list[Callable]:
    """How NumPy rebuilds arrays and scalars, under the paths of both its majors."""
    functions = []
    for package in ('numpy.core', 'numpy._core'):
        for name, function in (('_reconstruct', _empty_array), ('scalar', _scalar)):

            def stand_in(*args, function=function):
                return function(*args)

            functions.append(_in_place_of(f'{package}.multiarray.{name}')(stand_in))
    return functions


_ALLOWED = (
    argparse.Namespace,
    types.SimpleNamespace,
    HistoryBuffer,
    _Array,
    _NumberType,
    *_numpy_functions(),
    _history_statistic,
    _plain_dict,
    _bytes_of_text,
    _no_bytes,
)


@contextmanager
def harmless_classes() -> Iterator[None]:
    """Allow these classes while it lasts, and leave torch's own list as it was."""
    # A copy: torch 2.4 hands out the list that it adds to.
    before = list(get_safe_globals())
    add_safe_globals(list(_ALLOWED))
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)
