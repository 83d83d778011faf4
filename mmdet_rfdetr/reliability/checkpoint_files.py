"""Storages for checkpoints: complete files, and former ones that stay a while."""

import os
from collections.abc import Container

from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend

from mmdet_rfdetr.checkpoints.writing import replacing

BACKEND = 'rfdetr_local'


class CompleteFiles(LocalBackend):
    """mmengine's local files, except that what is written replaces a file at once."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes, completely or not at all."""
        with replacing(filepath) as file:
            file.write(obj)


register_backend(BACKEND, CompleteFiles, force=True)


class FormerFiles:
    """A storage that removes files of one folder, and those only when it is told to.

    mmengine removes a best checkpoint before it writes the next one. That of a run
    which this one continues elsewhere stays there.

    Args:
        backend: the storage.
        folder: where the files lie.
    """

    def __init__(self, backend: BaseStorageBackend, folder: str) -> None:
        self.backend = backend
        self.folder = folder
        self.outdated: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def isfile(self, path: str) -> bool:
        """Whether it is a file that may be removed."""
        return os.path.dirname(path) == self.folder and self.backend.isfile(path)

    def remove(self, path: str) -> None:
        """Remove a file later."""
        self.outdated.append(path)

    def remove_outdated(self, kept: Container[str | None] = ()) -> None:
        """Remove the files now, but those that were written anew."""
        outdated, self.outdated = self.outdated, []
        for path in outdated:
            if path not in kept:
                self.backend.remove(path)
