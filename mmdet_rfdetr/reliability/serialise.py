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


class NotPlainError(TypeError):
    """A value that cannot be said in tensors and plain values."""


def to_plain(value: Any) -> Any:
    """Say a value in tensors and plain Python values.

    Args:
        value: nested mappings, sequences and sets of tensors, NumPy values and plain
            values. Tensors keep their type; mappings become dicts (a state dict keeps
            its order and its ``_metadata``).

    Raises:
        NotPlainError: with the type of a value that is none of these.
    """
    if value is None:
        return None
    if isinstance(value, torch.Tensor):
        return value.detach()
    for kind in SCALARS:
        if isinstance(value, kind):  # or of a class derived from it
            return kind(value)
    if isinstance(value, np.generic | np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, Mapping):
        plain = {to_plain(key): to_plain(entry) for key, entry in value.items()}
        if not hasattr(value, '_metadata'):
            return plain
        # torch and this package's loader read what a state dict says about itself.
        kept = type(value)(plain)
        kept._metadata = to_plain(value._metadata)
        return kept
    for base, kind in ((Set, set), (tuple, tuple), (Sequence, list)):
        if isinstance(value, base):
            return kind(map(to_plain, value))
    raise NotPlainError(f'{type(value).__module__}.{type(value).__qualname__}')


def plain_entries(entries: Mapping) -> tuple[dict, dict[str, str]]:
    """Say in plain values whatever entries can be said so.

    Args:
        entries: values by name.

    Returns:
        The entries, and of those that are left out the type.
    """
    plain, left_out = {}, {}
    for name, value in entries.items():
        try:
            plain[name] = to_plain(value)
        except NotPlainError as error:
            left_out[name] = str(error)
    return plain, left_out


def log_to_plain(scalars: Mapping[str, HistoryBuffer]) -> dict[str, dict]:
    """Say the histories of a log in tensors.

    Args:
        scalars: ``log_scalars`` of a message hub.

    Returns:
        For each name the values and their counts, as tensors of their own type.
    """
    return {
        name: {
            'values': torch.from_numpy(buffer.data[0].copy()),
            'counts': torch.from_numpy(buffer.data[1].copy()),
            'max_length': buffer.max_length,
        }
        for name, buffer in scalars.items()
    }


def log_from_plain(scalars: Mapping[str, dict]) -> dict[str, HistoryBuffer]:
    """The reverse of :func:`log_to_plain`."""
    return {
        name: HistoryBuffer(
            entry['values'].cpu().numpy(),
            entry['counts'].cpu().numpy(),
            entry['max_length'],
        )
        for name, entry in scalars.items()
    }
