"""The files of a family of models: written as they are found, read to go on."""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there with all of its text, or as it was before."""
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    partial.write_text(text)
    partial.replace(path)


class Results:
    """Models that were evaluated, one a line of ``subnets.jsonl``.

    Lines are added with one write, so a process that is killed leaves whole lines and
    at most one that is cut off, which is not read; processes share the file.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / 'subnets.jsonl'

    def add(self, entries: Iterable[dict]) -> None:
        """Add lines, each with a ``name`` and the number of ``images``."""
        text = ''.join(json.dumps(entry) + '\n' for entry in entries)
        with self.path.open('ab+') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            # A line that was cut off ends here.
            file.write(('\n' * (file.read(1) not in b'\n') + text).encode())

    def read(self) -> dict[str, dict]:
        """What is known of each model by its name, from most images."""
        found: dict[str, dict] = {}
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            name = entry['name']
            if entry['images'] >= found.get(name, entry)['images']:
                found[name] = entry
        return found

    def replace(self, entries: Iterable[dict]) -> None:
        """Leave these lines alone."""
        write_whole(self.path, ''.join(json.dumps(entry) + '\n' for entry in entries))


def other_than(path: Path, about: dict) -> str | None:
    """Say which fact of a file differs; write it where there is none.

    Args:
        path: a file in JSON.
        about: facts, in JSON.

    Returns:
        The name of the first fact that differs, None if none does.
    """
    about = json.loads(json.dumps(about))
    if not path.exists():
        write_whole(path, json.dumps(about, indent=1))
    before = json.loads(path.read_text())
    return next((key for key in about if about[key] != before.get(key)), None)
