"""Reading checkpoint files without running code that they contain."""

import json
import logging
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch
from mmengine.logging import print_log

from ..errors import HOW_TO_TRUST, CheckpointError, UntrustedCheckpointError
from ..formats.unpickler import RefusedError, harmless_classes, refuse_endless
from .layout import INFO_KEY, to_mmengine_layout

_trusted = ContextVar('trusted', default=False)
# Texts of files that were loaded untrusted, by identity: one that a user has written
# can be equal.
_stored_configs: dict[int, tuple[object, Path]] = {}
# Where a checkpoint holds what mmengine makes a config of.
_CONFIGS = (('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg'), ('meta', 'config'))

_ZIP = b'PK\x03\x04'
_PICKLE = b'\x80\x02'  # a file in the format of torch before 1.6


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
        filename: Path of a ``.safetensors`` file or of one that ``torch.save`` wrote.
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
    if not _trusted.get():
        _remember_configs(checkpoint, path)
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
        load = _load_safetensors if path.suffix == '.safetensors' else _load_pickle
        loaded = load(path, map_location)
        if not _trusted.get():
            refuse_endless(loaded, path.stat().st_size)
        return loaded
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


def _load_pickle(path: Path, map_location):
    with path.open('rb') as file:
        head = file.read(16)
    size = path.stat().st_size
    problem = None
    if not head.startswith((_ZIP, _PICKLE)):
        problem = f'is no checkpoint of torch, it starts with {head!r}'
    elif head.startswith(_ZIP):
        problem = _find_damage(path, size)
    if problem is not None:
        raise CheckpointError(f'{path} {problem}: get the file again.')
    trusted = _trusted.get()
    if trusted:
        print_log(
            f'{path} is trusted: code in it may run while it is loaded.',
            logger='current',
            level=logging.WARNING,
        )
    try:
        with harmless_classes(size):
            return torch.load(
                path, map_location=map_location or 'cpu', weights_only=not trusted
            )
    except pickle.UnpicklingError as error:
        # torch puts its own advice around what the unpickler says.
        cause = error.__context__ or error
        if not isinstance(cause, RefusedError):
            raise cause from None
        raise UntrustedCheckpointError(
            f'{path} was refused and nothing in it has run: weights do not need '
            f'{cause}. {HOW_TO_TRUST}'
        ) from None


def _find_damage(path: Path, size: int) -> str | None:
    """Say what is wrong with an archive: cut off, grown in memory, or changed.

    ``torch.save`` stores everything as it is, so what an archive holds is never larger
    than the file. Packed entries, or entries that share their bytes, let a small file
    fill the memory. torch does not look at the checksums that it writes.
    """
    if not zipfile.is_zipfile(path):
        return f'is incomplete, its end is missing ({size} bytes are there)'
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > size:
            return f'has {size} bytes and would take {unpacked} in memory, unpacked'
        # set_crc32_options(False) of torch leaves out all of them.
        damaged = archive.testzip() if any(entry.CRC for entry in entries) else None
        if damaged is not None or len(set(archive.namelist())) < len(entries):
            return f'is damaged, {damaged or "an entry"} is not what was saved'
    return None


def _load_safetensors(path: Path, map_location) -> dict:
    from safetensors import safe_open

    # A function or a dict says where to put what lies on a GPU; here nothing does.
    is_device = isinstance(map_location, str | torch.device)
    device = str(map_location) if is_device else 'cpu'
    with safe_open(path, framework='pt', device=device) as file:
        metadata = file.metadata() or {}
        state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stored = json.loads(metadata.get(INFO_KEY, '{}'))
    if 'official' in stored:
        return {**stored['official'], 'model': state_dict}
    return {'state_dict': state_dict, 'meta': stored.get('meta', {})}


def _remember_configs(checkpoint, path: Path) -> None:
    for *keys, name in _CONFIGS:
        place = checkpoint
        for key in keys:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict) and name in place:
            _stored_configs[id(place[name])] = place[name], path


def refuse_stored_config(text: str) -> None:
    """Refuse to run a config, which is Python code, that a checkpoint brought along.

    mmengine would do so where it detects without a config, and when it resumes.

    Args:
        text: of a config that is about to be run.

    Raises:
        UntrustedCheckpointError: a checkpoint that was loaded holds it.
    """
    _, path = _stored_configs.get(id(text), (None, None))
    if path is not None and not _trusted.get():
        raise UntrustedCheckpointError(
            f'The config in {path} is Python code and has not been run: give a config '
            f'of your own besides the weights (model=CONFIG). {HOW_TO_TRUST}'
        )
