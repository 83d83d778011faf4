"""Checkpoints that are written as they are, with neither a copy nor a config anew."""

import functools
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import config as configs
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.runner import runner as runners

from ..checkpoints.writing import save_checkpoint_file

_MOST_KEPT = 4


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
