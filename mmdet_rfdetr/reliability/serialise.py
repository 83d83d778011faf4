"""Checkpoints of nothing but tensors and plain Python values.

mmengine puts objects of its own into a checkpoint, the histories of the log above all.
To unpickle them, a reader has to allow their classes and ``getattr``. What is written
here needs no such permission.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

SCALARS = (bool, int, float, complex, str, bytes)  # bool before int, which it is


class _NotPlainError(TypeError):
    """A value that cannot be said in tensors and plain values."""


def serialise(value: Any, left_out: dict[str, str] | None = None) -> Any:
    """Say a value in tensors and plain Python values.

    Args:
        value: nested mappings, sequences and sets of tensors, NumPy values, histories
            of a log, and plain values. Tensors keep their type; mappings become dicts
            (a state dict keeps its order and its ``_metadata``).
        left_out: gets the names of entries of mappings that cannot be said, which are
            left out, and their types.
    """
    left_out = {} if left_out is None else left_out
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value.detach()
    for kind in SCALARS:
        if isinstance(value, kind):  # or of a class derived from it
            return kind(value)
    if isinstance(value, np.generic | np.ndarray):
        return serialise(value.tolist(), left_out)
    if isinstance(value, HistoryBuffer):
        values, counts = (torch.from_numpy(array.copy()) for array in value.data)
        return dict(values=values, counts=counts, max_length=value.max_length)
    if isinstance(value, Mapping):
        return _serialise_entries(value, left_out)
    for base, kind in ((Set, set), (tuple, tuple), (Sequence, list)):
        if isinstance(value, base):
            return kind(serialise(entry, left_out) for entry in value)
    raise _NotPlainError(f'{type(value).__module__}.{type(value).__qualname__}')


def _serialise_entries(entries: Mapping, left_out: dict[str, str]) -> Mapping:
    plain = {}
    for name, value in entries.items():
        try:
            plain[serialise(name)] = serialise(value, left_out)
        except _NotPlainError as error:
            left_out[str(name)] = str(error)
    if not hasattr(entries, '_metadata'):
        return plain
    # torch and this package's loader read what a state dict says about itself.
    kept = type(entries)(plain)
    kept._metadata = serialise(entries._metadata)
    return kept


def restore_log(scalars: Mapping[str, Mapping]) -> dict[str, HistoryBuffer]:
    """Make the histories of a log of what :func:`serialise` said of them."""
    return {
        name: HistoryBuffer(
            entry['values'].cpu().numpy(),
            entry['counts'].cpu().numpy(),
            entry['max_length'],
        )
        for name, entry in scalars.items()
    }
