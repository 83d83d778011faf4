"""Writing files so that there is never half of one."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError


def save_checkpoint_file(checkpoint: Mapping, filename: str | Path) -> None:
    """Write a checkpoint in torch's format, complete or not at all.

    Args:
        checkpoint: ``state_dict`` and ``meta``, or ``model`` and ``args``.
        filename: Path of the file.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with replacing(filename) as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:
            # On a full disk torch's writer hides the system's error behind its own.
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else error from None


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Write a file beside ``path`` that takes its name once it is on the disk.

    Whatever happens, ``path`` is then either what it was or complete. A process that
    is killed while it writes leaves the other file; see :func:`remove_leftovers`.

    Args:
        path: the file to write; its folder must be there.

    Yields:
        The file to write to.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be written ({error.strerror}): choose another place.'
        ) from error
    finally:
        # What made writing impossible can make this impossible as well.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> list[str]:
    """Remove what processes left in a folder that were killed while they wrote.

    Args:
        folder: a folder that nobody else writes to at the moment.

    Returns:
        The names of the removed files.
    """
    leftovers = [
        path
        for pattern in ('.*.pth.*.tmp', '.last_checkpoint.*.tmp')
        for path in Path(folder).glob(pattern)
    ]
    for path in leftovers:
        path.unlink()
    return sorted(path.name for path in leftovers)


def _flush_folder(folder: Path) -> None:
    """Make the new name survive a power failure, where folders can be flushed."""
    if os.name != 'posix':
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
