"""The few classes that may come out of a checkpoint file.

``torch.load(weights_only=True)`` makes tensors and plain Python values only. Official
files also hold their arguments in a namespace, and a checkpoint of mmengine holds the
history of its log. Everything else is refused.

Where a file names a function that could do harm, ``builtins.getattr`` above all, a
function of this module stands in for it and does the one harmless thing.
"""

import argparse
import pickle
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


def _numpy_functions() -> list[Callable]:
    """How NumPy rebuilds arrays and scalars, under the paths of both its majors."""
    functions = []
    for package in ('numpy.core', 'numpy._core'):
        for example in (np.empty(0), np.float64(0)):
            rebuild = example.__reduce__()[0]

            def stand_in(*args, rebuild=rebuild):
                return rebuild(*args)

            path = f'{package}.multiarray.{rebuild.__name__}'
            functions.append(_in_place_of(path)(stand_in))
    return functions


# Types of numbers and text; not of objects, which could be anything.
_DTYPES = [type(np.dtype(code)) for code in '?bhilqBHILQefdgSU']

_ALLOWED = (
    argparse.Namespace,
    types.SimpleNamespace,
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    *_DTYPES,
    *_numpy_functions(),
    _history_statistic,
    _plain_dict,
    _bytes_of_text,
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
