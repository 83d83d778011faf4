"""All errors that users see; each says everything in its message."""

from collections.abc import Sequence
from numbers import Integral


class ExplainedError(Exception):
    """What went wrong and what to do next, in the message; no traceback is needed.

    The command line tools print the message alone and leave with the exit code 1.
    """


class SettingError(ExplainedError, ValueError):
    """A setting, of a config or of a call, that is wrong or does not fit another."""


class MissingPackageError(ExplainedError, ImportError):
    """A setting needs a package that is not installed."""


class ImageSizeError(ExplainedError, ValueError):
    """An input size that the patches and windows of the model do not divide."""


class PrecisionError(ExplainedError, RuntimeError):
    """Two settings contradict each other, or the hardware cannot do what is set."""


class MissingOpError(ExplainedError, RuntimeError):
    """An operator was called that mmcv-lite does not have."""


class BadDataError(ExplainedError, ValueError):
    """The data cannot be used, or has faults and ``bad_data='error'`` forbids them."""


class BadImageError(ExplainedError):
    """An image file that cannot be used.

    Args:
        kind: ``'missing'``, ``'empty'``, ``'huge'`` or ``'unreadable'``.
        reason: what the decoder said.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class CheckpointError(ExplainedError, RuntimeError):
    """A checkpoint cannot be used; the message says why and what to do next."""


class UntrustedCheckpointError(CheckpointError):
    """A checkpoint names Python objects that plain weights do not need."""


class RuinedWeightsError(CheckpointError):
    """What a run has learned is infinite or not a number."""


class ResumeError(ExplainedError, ValueError):
    """A checkpoint cannot be continued under the settings of this run."""


class NonFiniteError(ExplainedError, RuntimeError):
    """A loss, a gradient or a matching cost is infinite or not a number."""


class CompileError(ExplainedError, RuntimeError):
    """Something that ``torch.compile`` needs is missing on this machine."""


class RecordingError(ExplainedError, RuntimeError):
    """Something cannot be recorded as a CUDA graph."""


class DeployedModelError(ExplainedError, RuntimeError):
    """A model that was switched to deploy is to be trained, saved or loaded."""


HOW_TO_TRUST = (
    'If you made the file yourself, run python -m mmdet_rfdetr --trust-checkpoint TOOL '
    '... (in Python: with trust_checkpoint()).'
)
"""The last sentence of an error about code in a file."""

EXIT_INTERRUPTED = 75
"""Exit code of a run that can go on (sysexits.h: another attempt may succeed)."""


def check_counts(**counts: int) -> None:
    """Refuse numbers of things of which there has to be one at least.

    Args:
        **counts: numbers by the name of their setting, with ``__`` for dots.

    Raises:
        SettingError: one is no whole number, or smaller than 1.
    """
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise SettingError(
                f'{name.replace("__", ".")}={count!r} must be a whole number, 1 or more'
            )


def list_names(names: Sequence[str], most: int = 3) -> str:
    """The first names for a message, and how many more there are."""
    more = len(names) - most
    return ', '.join(names[:most]) + (f' and {more} more' if more > 0 else '')
