"""Writing checkpoint files so that there is never half a file."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from .atomic import replacing
from .errors import CheckpointError
from .layout import INFO_KEY

SUFFIXES = ('.pth', '.pt', '.safetensors')


def save_checkpoint_file(checkpoint: Mapping, filename: str) -> None:
    """Write a checkpoint, complete or not at all.

    It goes to a temporary file in the same folder, which then takes the name.

    Args:
        checkpoint: ``state_dict`` and ``meta``, or ``model`` and ``args``.
        filename: Ends in ``.pth`` or ``.pt`` for torch's format, or in
            ``.safetensors``, which keeps of all but the weights only what JSON can say.

    Raises:
        CheckpointError: the name has another ending, or the file cannot be written.
    """
    path = Path(filename)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f'{path}: a checkpoint ends in {", ".join(SUFFIXES)}; rename it.'
        )
    with replacing(path) as file:
        if path.suffix == '.safetensors':
            file.write(_to_safetensors(checkpoint))
        else:
            # Through memory: on a full disk torch's writer hides the system's error.
            buffer = io.BytesIO()
            torch.save(checkpoint, buffer)
            file.write(buffer.getbuffer())


def _to_safetensors(checkpoint: Mapping) -> bytes:
    from safetensors.torch import save

    rest = dict(checkpoint)
    weights = rest.pop('model', None)
    if weights is None:
        weights = rest.pop('state_dict')
        stored = {'meta': _sayable(rest.get('meta', {}))}
    else:
        stored = {'official': _sayable(rest)}
    tensors = {name: value.contiguous() for name, value in weights.items()}
    return save(tensors, {'format': 'pt', INFO_KEY: json.dumps(stored)})


def _sayable(entries: Mapping) -> dict:
    """The entries that JSON can hold."""

    def can_be_said(value) -> bool:
        try:
            json.dumps(value)
        except TypeError:
            return False
        return True

    return {key: value for key, value in entries.items() if can_be_said(value)}
