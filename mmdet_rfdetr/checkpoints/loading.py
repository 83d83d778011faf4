"""Reading checkpoint files without running code that they contain."""

import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from mmengine.logging import print_log

from ..errors import HOW_TO_TRUST, CheckpointError, UntrustedCheckpointError
from .layout import to_mmengine_layout
from .stand_ins import RefusedError, safe_globals

_trusted = ContextVar('trusted', default=False)

GUARDS: list[Callable[[], AbstractContextManager]] = []
"""What a tool enters before anything of MMDetection reads a file."""


@contextmanager
def trust_checkpoint() -> Iterator[None]:
    """Let checkpoints run code while they are loaded, for files one made oneself.

    It is what ``--trust-checkpoint`` of the tools turns on, and the only way around
    the refusal of unknown classes.
    """
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted() -> bool:
    """Whether files may run code at the moment."""
    return _trusted.get()


def load_checkpoint_file(filename: str, map_location=None) -> dict:
    """Load a checkpoint file of any kind; official ones get mmengine's layout.

    Args:
        filename: Path of a file that ``torch.save`` wrote, or of another known kind.
        map_location: As in :func:`torch.load`; None loads to the CPU.

    Returns:
        For RF-DETR files ``state_dict`` (under the names it had) and ``meta``. Other
        files come as they are, a bare state dict included.

    Raises:
        FileNotFoundError: there is no such file.
        UntrustedCheckpointError: it names classes that weights do not need; none of
            its code has run.
        CheckpointError: it is damaged, cannot be read, or holds no weights.
    """
    path = Path(filename)
    checkpoint = read_file(path, map_location)
    weights = checkpoint
    if isinstance(checkpoint, dict):
        weights = checkpoint.get('state_dict', checkpoint)
    named = isinstance(weights, dict) and all(isinstance(x, str) for x in weights)
    if not named or not weights:
        found = f'an odd {type(weights).__name__}' if not named else 'nothing'
        raise CheckpointError(
            f'{path} is the wrong checkpoint, it holds {found} in the place of weights '
            'by name: give a file with a state dict.'
        )
    return to_mmengine_layout(checkpoint)


def read_file(filename: str | Path, map_location=None):
    """Read a checkpoint file of any kind as it is; see :func:`load_checkpoint_file`."""
    path = Path(filename)
    try:
        if not path.is_file():
            kind = 'is no ordinary file' if path.exists() else 'does not exist'
            raise FileNotFoundError(
                f'{path} {kind}: give the path of a checkpoint file (paths start from '
                f'{Path.cwd()}).'
            )
        read = READERS.get(path.suffix, READERS[''])
        return read(path, map_location)
    except (CheckpointError, FileNotFoundError):
        raise
    except Exception as error:
        # Damaged bytes can say anything, and end in any of Python's errors.
        reason = getattr(error, 'strerror', None) or str(error).strip()
        reason = (reason or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f'{path} cannot be read ({reason}): if it is cut off or damaged, get the '
            'file again.'
        ) from error


def unpickle(path: Path, map_location):
    """Read a file that ``torch.save`` wrote.

    Args:
        path: of the file.
        map_location: As in :func:`load_checkpoint_file`.

    Raises:
        UntrustedCheckpointError: it names what torch's unpickler does not know.
        pickle.UnpicklingError: it is damaged, as many other errors say as well.
    """
    trusted = _trusted.get()
    if trusted:
        print_log(
            f'{path} is trusted: code in it may run while it is loaded.',
            logger='current',
            level=logging.WARNING,
        )
    try:
        return torch.load(
            path, map_location=map_location or 'cpu', weights_only=not trusted
        )
    except pickle.UnpicklingError as error:
        # torch puts its own advice around what the unpickler says.
        cause = error.__context__ or error
        unknown = re.search(r'GLOBAL (\S+)', str(cause))
        if not unknown and not isinstance(cause, RefusedError):
            raise cause from None
        raise UntrustedCheckpointError(
            f'{path} was refused and nothing in it has run: weights do not need '
            f'{unknown[1] if unknown else cause}. {HOW_TO_TRUST}'
        ) from None


def read_weights(path: Path, map_location):
    """Read a file of tensors and of what mmengine's hooks save, by torch's own reader.

    Args:
        path: of the file.
        map_location: As in :func:`load_checkpoint_file`.
    """
    with torch.serialization.safe_globals(safe_globals()):
        return unpickle(path, map_location)


READERS: dict[str, Callable] = {'': read_weights}
"""What reads a file, given its path and ``map_location``, by the ending of its name.

The one without an ending reads all others. A reader returns what the file holds.
"""
