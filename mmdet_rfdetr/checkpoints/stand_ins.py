"""What stands in for the functions and classes that mmengine's checkpoints name.

Beside tensors these hold numbers and arrays of NumPy, and the history of a log. Each
stand-in does the one harmless thing that such a file needs of what it replaces.
"""

import argparse
import re
import reprlib
from collections.abc import Callable
from functools import partial
from pickle import UnpicklingError

import numpy as np
from mmengine.logging import HistoryBuffer

STATISTICS = ('min', 'max', 'mean', 'current')
"""Methods of mmengine's log that a checkpoint names."""


class RefusedError(UnpicklingError):
    """A pickle holds what is not on the list; the message names it."""


class NumberType:
    """What a file says of a NumPy type: numbers or text, never objects.

    NumPy's own class would take objects, and let a file change the size of a type
    that is in use: both make it read memory that the file does not hold.
    """

    def __init__(self, code: str, *_flags: bool) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[biufcSU]\d{1,9}', code):
            raise RefusedError(f'numpy.dtype of {reprlib.repr(code)}')
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        order, *parts = state[1:5]
        if order not in ('<', '>', '|', '=') or any(part is not None for part in parts):
            raise RefusedError(f'numpy.dtype with {reprlib.repr(state)}')
        self.order = order


class Array(np.ndarray):
    """An array that a file fills by :meth:`__setstate__` and by nothing else."""

    def __new__(cls, *_kind_shape_and_code) -> 'Array':
        """Make an empty array, whatever a file asks for."""
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, raw = state
        array = read_numbers(raw, dtype, shape[::-1] if in_columns else shape)
        super().__setstate__((array.T if in_columns else array).__reduce__()[2])

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def read_numbers(raw: bytes | str, dtype: NumberType, shape: tuple) -> np.ndarray:
    """Copy an array out of bytes, of which there are as many as it takes."""
    if type(dtype) is not NumberType:
        raise RefusedError(f'numpy.ndarray of {reprlib.repr(dtype)}')
    if isinstance(raw, str):  # Python 2 had no other bytes
        raw = raw.encode('latin1')
    kind = np.dtype(dtype.code).newbyteorder(dtype.order)
    return np.frombuffer(raw, kind).reshape(shape).copy()


def _scalar(dtype: NumberType, raw: bytes | str) -> np.generic:
    return read_numbers(raw, dtype, ())[()]


def _statistic(owner: type, name: str) -> Callable:
    """The only attributes a checkpoint of mmengine asks for."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise RefusedError('builtins.getattr')
    return getattr(owner, name)


def _settings(items: dict) -> dict:
    """Nested settings in a data set's metainfo, as a dict."""
    if type(items) is not dict:
        raise RefusedError('a ConfigDict of something else')
    return dict(items)


FUNCTIONS: dict[str, Callable] = {
    'builtins.getattr': _statistic,
    'mmengine.config.config.ConfigDict': _settings,
    'numpy.dtype': NumberType,
}
"""What a file may call, by the names that it knows."""
for _package in ('numpy.core', 'numpy._core'):  # of both majors
    FUNCTIONS[f'{_package}.multiarray._reconstruct'] = Array
    FUNCTIONS[f'{_package}.multiarray.scalar'] = _scalar


def safe_globals() -> list[Callable]:
    """The same for :func:`torch.serialization.safe_globals`."""
    names = {'numpy.ndarray': Array, **FUNCTIONS}
    named = [partial(function) for function in names.values()]
    for function, path in zip(named, names, strict=True):
        module, _, name = path.rpartition('.')
        function.__module__ = module
        function.__qualname__ = function.__name__ = name
    return [*named, argparse.Namespace, HistoryBuffer, NumberType, Array]
