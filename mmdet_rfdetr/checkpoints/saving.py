"""Writing checkpoint files so that there is never half a file."""

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.logging import print_log

from ..errors import CheckpointError
from .atomic import replacing
from .layout import INFO_KEY

SUFFIXES = ('.pth', '.pt', '.safetensors')


def save_checkpoint_file(checkpoint: Mapping, filename: str) -> None:
    """Write a checkpoint, complete or not at all.

    It goes to a temporary file in the same folder, which then takes the name.

    Args:
        checkpoint: ``state_dict`` and ``meta``, or ``model`` and ``args``.
        filename: Ends in ``.pth`` or ``.pt`` for torch's format, or in
            ``.safetensors``, which besides the weights keeps what JSON can say; what is
            left out is told.

    Raises:
        CheckpointError: the name has another ending, or the file cannot be written.
    """
    path = Path(filename)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f'{path}: a checkpoint ends in {", ".join(SUFFIXES)}; rename it.'
        )
    left_out = []
    with replacing(path) as file:
        if path.suffix == '.safetensors':
            content, left_out = _to_safetensors(checkpoint)
            file.write(content)
        else:
            # Through memory: on a full disk torch's writer hides the system's error.
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer)
            file.write(buffer.getbuffer())
    if left_out:
        print_log(
            f'{path} lacks {", ".join(left_out)}, which JSON cannot say: write a .pth '
            'file to keep all.',
            logger='current',
            level=logging.WARNING,
        )


def _to_safetensors(checkpoint: Mapping) -> tuple[bytes, list[str]]:
    """The bytes of a file, and the names of what it does not hold."""
    from safetensors.torch import save

    rest = dict(checkpoint)
    weights = rest.pop('model', None)
    left_out: list[str] = []
    if weights is None:
        weights = rest.pop('state_dict')
        stored = {'meta': _sayable(rest.pop('meta', {}), 'meta.', left_out)}
        left_out += rest
    else:
        stored = {'official': _sayable(rest, '', left_out)}
    # The format knows no strides, and no tensors that share their memory.
    apart = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
    return save(apart, {'format': 'pt', INFO_KEY: json.dumps(stored)}), left_out


def _sayable(entries: Mapping, path: str, left_out: list[str]) -> dict:
    """The entries that JSON can hold, at any depth of dicts.

    Args:
        entries: Anything by name.
        path: Where they lie, for the names of those that are left out.
        left_out: Gets these names.
    """
    said = {}
    for key, value in entries.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            said[key] = _sayable(value, f'{path}{key}.', left_out)
        elif isinstance(key, str) and _can_be_said(value):
            said[key] = value
        else:
            left_out.append(f'{path}{key}')
    return said


def _can_be_said(value) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
