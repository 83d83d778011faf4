"""Checkpoint files: reading them safely, and fitting them to a model.

Nothing here knows a model; it is all about state dicts, names and tensors.
"""

from ..errors import CheckpointError, UntrustedCheckpointError
from .hooks import register_state_dict_adapter
from .loading import load_checkpoint_file, trust_checkpoint
from .names import from_official, to_official
from .writing import save_checkpoint_file

__all__ = [
    'CheckpointError',
    'UntrustedCheckpointError',
    'from_official',
    'load_checkpoint_file',
    'register_state_dict_adapter',
    'save_checkpoint_file',
    'to_official',
    'trust_checkpoint',
]
