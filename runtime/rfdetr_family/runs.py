"""Checkpoints of a run, and images of a set, by their files."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path


def digests(paths: Iterable[str]) -> dict[str, str]:
    """Each path by a digest of what its file holds."""
    return {hashlib.sha256(Path(x).read_bytes()).hexdigest(): x for x in paths}


def earlier_checkpoint(checkpoint: str) -> str | None:
    """The last checkpoint of the run that is older, if one lies beside it."""
    path, found = Path(checkpoint), {}
    mark = re.search(r'(epoch|iter)_(\d+)\.pth$', path.name)
    for other in path.parent.glob('*.pth') if mark else ():
        number = re.fullmatch(rf'{mark[1]}_(\d+)\.pth', other.name)
        if number and int(number[1]) < int(mark[2]):
            found[int(number[1])] = str(other)
    return found[max(found)] if found else None
