"""Reading files of strangers: checked for damage, small in memory, and without code.

What is read here takes the place of the reader of the core, which leaves this to torch.
"""

import functools
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from ..checkpoints.layout import INFO_KEY
from ..checkpoints.loading import READERS, is_trusted, unpickle
from ..errors import HOW_TO_TRUST, CheckpointError, UntrustedCheckpointError
from .unpickler import harmless_classes, refuse_endless

# Texts of files that were loaded untrusted, by identity: one that a user has written
# can be equal.
_stored_configs: dict[int, tuple[object, Path]] = {}
# Where a checkpoint holds what mmengine makes a config of.
_CONFIGS = (('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg'), ('meta', 'config'))

_ZIP = b'PK\x03\x04'
# In front of each entry; at its end the lengths of its name and of an extra field.
_LOCAL_HEADER = struct.Struct('<4s5H3L2H')
_IS_UTF_8 = 0x800
_READ = 2**18
_PICKLE = b'\x80\x02'  # a file in the format of torch before 1.6


def read_pickle(path: Path, map_location):
    """Read a file that ``torch.save`` wrote.

    Args:
        path: of the file.
        map_location: As in :func:`torch.load`; None loads to the CPU.

    Raises:
        UntrustedCheckpointError: it names classes that weights do not need.
        CheckpointError: it is damaged.
        pickle.UnpicklingError: it is damaged, as many other errors say as well.
    """
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
    with harmless_classes(size):
        return unpickle(path, map_location)


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
        damaged = _find_damaged(archive) if any(x.CRC for x in entries) else None
        if damaged is not None or len(set(archive.namelist())) < len(entries):
            return f'is damaged, {damaged or "an entry"} is not what was saved'
    return None


def _find_damaged(archive: zipfile.ZipFile) -> str | None:
    """As :meth:`zipfile.ZipFile.testzip`, and sooner where nothing is packed."""
    entries, file, buffer = archive.infolist(), archive.fp, memoryview(bytearray(_READ))
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        return archive.testzip()
    for entry in entries:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size).ljust(_LOCAL_HEADER.size, b'\0')
        signature, *_, name, extra = _LOCAL_HEADER.unpack(header)
        encoding = 'utf-8' if entry.flag_bits & _IS_UTF_8 else 'cp437'
        named = file.read(name) == entry.orig_filename.encode(encoding)
        file.seek(extra, os.SEEK_CUR)
        checksum, left = 0, entry.file_size
        # As much at a time as stays in the cache from reading it to adding it up.
        while left and (count := file.readinto(buffer[:left])):
            checksum = zlib.crc32(buffer[:count], checksum)
            left -= count
        if signature != _ZIP or not named or left or checksum != entry.CRC:
            return entry.filename
    return None


def read_safetensors(path: Path, map_location) -> dict:
    """Read weights in the format of ``safetensors``.

    Args:
        path: of the file.
        map_location: As in :func:`read_pickle`.
    """
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


def _of_strangers(read: Callable) -> Callable:
    """A reader that keeps what it read from being endless, or run as a config."""

    @functools.wraps(read)
    def read_untrusted(path: Path, map_location):
        loaded = read(path, map_location)
        if not is_trusted():
            refuse_endless(loaded, path.stat().st_size)
            _remember_configs(loaded, path)
        return loaded

    return read_untrusted


READERS[''] = _of_strangers(read_pickle)
READERS['.safetensors'] = _of_strangers(read_safetensors)


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
    if path is not None and not is_trusted():
        raise UntrustedCheckpointError(
            f'The config in {path} is Python code and has not been run: give a config '
            f'of your own besides the weights (model=CONFIG). {HOW_TO_TRUST}'
        )


def run_no_stored_config() -> str | None:
    """Keep mmengine from running the config that a checkpoint holds as text.

    A config is Python code. An inferencer without a config of its own takes that of
    its weights, so that a file of tensors and text could do anything; a runner that
    resumes does so with one that old versions wrote.

    Returns:
        The reason; the gap is there with every mmengine.
    """
    original = Config.fromstring

    @functools.wraps(original)
    def fromstring(cfg_str, file_format):
        refuse_stored_config(cfg_str)
        return original(cfg_str, file_format)

    Config.fromstring = staticmethod(fromstring)
    return 'mmengine runs the config that a checkpoint holds, which is code.'
