"""Checkpoints that are written and resumed from with no copy on the way."""

import functools
import importlib.util
import zipfile
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path

from mmengine.config import config as configs
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.runner import runner as runners
from mmengine.utils import apply_to
from torch import Tensor

from ..checkpoints.writing import save_checkpoint_file

_MOST_KEPT = 4
_COPIED_BY_MODELS = {'state_dict', 'ema_state_dict'}


def format_configs_once() -> str | None:
    """Keep the last formatted texts of configs.

    A checkpoint holds the run's config as text, and a run begins with several of them.
    mmengine has it formatted for each, which takes longer than to write the weights of
    a small model.

    Returns:
        The reason; the gap is there with every mmengine.
    """
    original = configs.FormatCode
    kept: dict[tuple, tuple] = {}

    def format_code(text: str, **settings) -> tuple:
        key = text, repr(settings)
        if key not in kept:
            kept[key] = original(text, **settings)
        while len(kept) > _MOST_KEPT:
            del kept[next(iter(kept))]
        return kept[key]

    configs.FormatCode = format_code
    return 'mmengine formats the config of a run again for every checkpoint.'


def save_without_copies() -> str | None:
    """Write the checkpoints of a run to a local disk straight from the weights.

    mmengine makes the whole file in memory first, in pieces that grow, and copies it.

    Returns:
        The reason; the gap is there with every mmengine.
    """
    original = runners.save_checkpoint

    @functools.wraps(original)
    def save(
        checkpoint: Mapping,
        filename: str,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
    ) -> None:
        is_local = file_client_args is None and '://' not in filename
        if is_local and isinstance(
            get_file_backend(filename, backend_args=backend_args), LocalBackend
        ):
            Path(filename).parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint_file(checkpoint, filename)
        else:
            original(checkpoint, filename, file_client_args, backend_args)

    runners.save_checkpoint = save
    return 'mmengine copies a checkpoint in memory before it is written.'


def resume_without_copies() -> str | None:
    """Copy the weights of a resumed run into the model straight from the file.

    The file is mapped, and not read into memory first, for as long as it takes: what is
    not copied into the model or its average, as the state of the optimizer, is copied
    first, so that nothing depends on the file afterwards.

    Returns:
        The reason, or None with torch before 2.7, which reads all files alike.
    """
    if importlib.util.find_spec('torch.utils.serialization') is None:
        return None
    resume, read = runners.Runner.resume, runners._load_checkpoint
    is_resuming = ContextVar('is_resuming', default=False)

    @functools.wraps(resume)
    def resume_mapped(*args, **kwargs) -> None:
        token = is_resuming.set(True)
        try:
            resume(*args, **kwargs)
        finally:
            is_resuming.reset(token)

    @functools.wraps(read)
    def read_mapped(filename: str, *args, **kwargs) -> dict:
        if not is_resuming.get() or not _is_archive(filename):
            return read(filename, *args, **kwargs)
        from torch.utils.serialization import config as settings

        # For this file alone: torch maps no other kind, and a hook may read one.
        with settings.patch({'load.mmap': True}):
            checkpoint = read(filename, *args, **kwargs)
        for name in checkpoint.keys() - _COPIED_BY_MODELS:
            checkpoint[name] = apply_to(checkpoint[name], _on_cpu, Tensor.clone)
        return checkpoint

    runners.Runner.resume, runners._load_checkpoint = resume_mapped, read_mapped
    return 'mmengine reads the weights of a resumed run twice over.'


def _is_archive(filename: str) -> bool:
    return Path(filename).is_file() and zipfile.is_zipfile(filename)


def _on_cpu(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == 'cpu'
