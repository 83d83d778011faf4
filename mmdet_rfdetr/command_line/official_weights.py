"""The official files of weights: which there are, and where those lie that are here.

Tools read this file without the package, which imports PyTorch: it needs nothing beyond
Python's own library. ``official_weights.json`` beside it says all that is known.
"""

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path

SCHEME = 'rfdetr://'
"""Begins the name of an official file in the place of a path, as ``rfdetr://nano``."""

FOLDER_VARIABLE = 'RFDETR_WEIGHTS'
"""Names another folder than the one in the user's cache."""


@dataclass(frozen=True)
class Weights:
    """An official file.

    Args:
        name: in commands.
        file: its name on a disk.
        configs: of this package that are the same network; the first is the usual one.
        licence: None if it is not stated.
        size: in bytes, None if it is not known before it is downloaded.
        md5: hash of its content.
        url: where it is published.
        published: ``metric`` (``bbox`` or ``segm``), ``AP`` and ``AP50`` on COCO
            val2017 in percent; None where there are none.
        note: what is to be known besides.
    """

    name: str
    file: str
    configs: list[str]
    licence: str | None
    size: int | None
    md5: str
    url: str
    published: dict | None
    note: str

    def path(self, folder: Path | None = None) -> Path:
        """Where it lies, in a folder or in the usual one, if it was downloaded."""
        return Path(folder or default_folder(), self.file)


def read_table() -> list[Weights]:
    """All official files."""
    text = Path(__file__).with_suffix('.json').read_text(encoding='utf-8')
    return [Weights(**entry) for entry in json.loads(text)]


def default_folder() -> Path:
    """Where downloaded files lie unless a command says otherwise."""
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    folder = os.environ.get(FOLDER_VARIABLE) or Path(cache, 'mmdet_rfdetr')
    return Path(folder).expanduser()


def find_entry(name: str) -> Weights:
    """Find an official file by its name here, its file name or its config.

    Raises:
        FileNotFoundError: there is none; with the nearest name.
    """
    table = read_table()
    for entry in table:
        if name in (entry.name, entry.file, *entry.configs):
            return entry
    names = [entry.name for entry in table]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean {close[0]!r}?' if close else f'there are {", ".join(names)}.'
    raise FileNotFoundError(f'There are no official weights {name!r}; {hint}')


def find(name: str) -> Path:
    """Find an official file that was downloaded.

    Args:
        name: as in :func:`find_entry`, after ``rfdetr://`` or alone.

    Raises:
        FileNotFoundError: it is not there; with the command that gets it.
    """
    entry = find_entry(name.removeprefix(SCHEME))
    path = entry.path()
    if not path.is_file():
        raise FileNotFoundError(
            f'{entry.file} is not in {path.parent} yet: get it by '
            f'python -m mmdet_rfdetr weights get {entry.name}'
        )
    return path
