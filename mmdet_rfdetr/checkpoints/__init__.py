"""Checkpoint files: reading them safely, and fitting them to a model.

Nothing here knows a model; it is all about state dicts, names and tensors.
"""

from .errors import CheckpointError, UntrustedCheckpointError
from .hooks import register_backbone_adapter, register_state_dict_adapter
from .names import from_official, to_official

__all__ = [
    'CheckpointError',
    'UntrustedCheckpointError',
    'from_official',
    'register_backbone_adapter',
    'register_state_dict_adapter',
    'to_official',
]
