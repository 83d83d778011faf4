"""The few functions and classes that a pickle may name.

A pickle is a program that calls functions by name. Tensors and plain values need a
short list of them. Official files also hold their arguments in a namespace, and a
checkpoint of mmengine holds the history of its log. Everything else is refused.

Where a file names a function that could do harm, ``builtins.getattr`` above all, or
take any amount of memory, a function of this module stands in for it and does the one
harmless thing.
"""

import argparse
import functools
import io
import pickle
import re
import reprlib
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class RefusedError(pickle.UnpicklingError):
    """A pickle holds what is not on the list; the message names it."""


class _NumberType:
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

    def read(self, raw: bytes | str, shape: tuple[int, ...]) -> np.ndarray:
        """Copy the numbers out of bytes, of which there are as many as they take."""
        if isinstance(raw, str):  # Python 2 had no other bytes
            raw = raw.encode('latin1')
        dtype = np.dtype(self.code).newbyteorder(self.order)
        return np.frombuffer(raw, dtype).reshape(shape).copy()


class _Array(np.ndarray):
    """An array that a file fills by :meth:`__setstate__` and by nothing else."""

    def __new__(cls, *args, **_options) -> '_Array':
        raise RefusedError(f'numpy.ndarray{reprlib.repr(args)}')

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, in_columns, raw = state
        if type(dtype) is not _NumberType:
            raise RefusedError(f'numpy.ndarray of {reprlib.repr(dtype)}')
        array = dtype.read(raw, shape[::-1] if in_columns else shape)
        super().__setstate__((array.T if in_columns else array).__reduce__()[2])

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def _empty_array(kind: type, *_shape_and_code) -> _Array:
    if kind is not _Array:
        raise RefusedError(f'{reprlib.repr(kind)} as an array')
    return np.empty(0).view(_Array)


def _array_of_bytes(raw: bytes, dtype: _NumberType, shape: tuple, order: str):
    """How protocol 5 says an array."""
    if type(dtype) is not _NumberType:
        raise RefusedError(f'numpy.ndarray of {reprlib.repr(dtype)}')
    return dtype.read(raw, shape[::-1]).T if order == 'F' else dtype.read(raw, shape)


def _scalar(dtype: _NumberType, raw: bytes | str) -> np.generic:
    if type(dtype) is not _NumberType:
        raise RefusedError(f'{reprlib.repr(dtype)} as the type of a number')
    return dtype.read(raw, ())[()]


def history_statistic(owner: type, name: str) -> Callable:
    """The only attributes a checkpoint of mmengine asks for: statistics of a log."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise RefusedError('builtins.getattr')


def _bytes_of_text(text: str, encoding: str) -> bytes:
    """How protocol 2 of pickle says bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise RefusedError(f'_codecs.encode to {reprlib.repr(encoding)}')
    return text.encode('latin1')


def _no_bytes() -> bytes:
    """How the same protocol says bytes of which there are none, of an empty array."""
    return b''


def refuse_deep_keys(keys: Iterable) -> None:
    """Refuse nested keys: a hash follows every reference in a tuple, each time anew."""
    flat = (tuple, frozenset)
    for key in keys:
        if isinstance(key, flat) and any(isinstance(part, flat) for part in key):
            raise pickle.UnpicklingError('a key of a dict is nested')


def _set(items: list) -> set:
    refuse_deep_keys(items)
    return set(items)


def _ordered_dict(items: list = ()) -> OrderedDict:
    refuse_deep_keys(key for key, _ in items)
    return OrderedDict(items)


def _plain_dict(items: dict) -> dict:
    """Nested settings in a data set's metainfo."""
    if type(items) is not dict:
        raise RefusedError('a ConfigDict of something else')
    return dict(items)


def _tensor(rebuild: Callable, storage, offset: int, size: tuple, stride: tuple, *rest):
    """A tensor of numbers that its storage has; torch would make room for more."""
    dtypes = [value for value in rest if isinstance(value, torch.dtype)]
    dtype = dtypes[0] if dtypes else storage.dtype  # newer types have no storage
    numbers = storage._untyped_storage.nbytes() // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and not 0 <= offset <= last < numbers:
        raise pickle.UnpicklingError('a tensor is larger than its numbers')
    return rebuild(storage, offset, size, stride, *rest)


def _storage(raw: bytes):
    """A tensor's numbers in a pickle that is no checkpoint."""
    if not raw.startswith(b'\x80\x02'):  # an archive, which might grow in memory
        raise RefusedError('torch.storage._load_from_bytes')
    return torch.load(io.BytesIO(raw), weights_only=True)


# What may be made without arguments and then filled, and what may be called.
CLASSES = {
    'argparse.Namespace': argparse.Namespace,
    'types.SimpleNamespace': types.SimpleNamespace,
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
}
# Results of MMDetection. Imported when a file names one: nothing here needs them.
STRUCTURES = (
    'mmengine.structures.base_data_element.BaseDataElement',
    'mmengine.structures.instance_data.InstanceData',
    'mmengine.structures.pixel_data.PixelData',
    'mmdet.structures.det_data_sample.DetDataSample',
    'mmdet.structures.bbox.horizontal_boxes.HorizontalBoxes',
    'mmdet.structures.mask.structures.BitmapMasks',
    'mmdet.structures.mask.structures.PolygonMasks',
)
FUNCTIONS = {
    'builtins.getattr': history_statistic,
    'builtins.bytes': _no_bytes,
    'builtins.set': _set,
    'builtins.complex': complex,
    'collections.OrderedDict': _ordered_dict,
    'mmengine.config.config.ConfigDict': _plain_dict,
    '_codecs.encode': _bytes_of_text,
    'numpy.dtype': _NumberType,
    'numpy.ndarray': _Array,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.storage._load_from_bytes': _storage,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
}
for _package in ('numpy.core', 'numpy._core'):  # of both majors
    FUNCTIONS[f'{_package}.multiarray._reconstruct'] = _empty_array
    FUNCTIONS[f'{_package}.multiarray.scalar'] = _scalar
    FUNCTIONS[f'{_package}.numeric._frombuffer'] = _array_of_bytes
for _name in ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3'):
    _rebuild = getattr(torch._utils, _name)
    FUNCTIONS[f'torch._utils.{_name}'] = functools.partial(_tensor, _rebuild)
