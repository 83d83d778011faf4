"""What goes wrong with a checkpoint file."""

from ..errors import ExplainedError


class CheckpointError(ExplainedError, RuntimeError):
    """A checkpoint cannot be used; the message says why and what to do next."""


class UntrustedCheckpointError(CheckpointError):
    """A checkpoint names Python objects that plain weights do not need."""


HOW_TO_TRUST = (
    'If you made the file yourself, run python -m mmdet_rfdetr --trust-checkpoint TOOL '
    '... (in Python: with trust_checkpoint()).'
)
"""The last sentence of an error about code in a file."""
