"""Images beside what is written: their names, links and copies."""

import itertools
import os
import shutil
from pathlib import Path

from rfdetr_datasets.files import Watch, relative, slashes


def target_names(document: dict) -> dict[str, str]:
    """Names below a new folder for the images of a document, by ``file_name``.

    Folders below that of all images stay. No two names differ in their ending alone,
    since they would share their labels.
    """
    names = [image.get('file_name') for image in document['images']]
    paths = {name: slashes(name) for name in names if isinstance(name, str)}
    try:
        root = os.path.commonpath([*map(os.path.dirname, paths.values())])
    except ValueError:  # there are none, or some are whole paths and some are not
        root = ''
    taken: set[str] = set()
    for name, path in paths.items():
        parts = relative(path, root or '.').split('/')
        # Labels are looked for where "images" stands in the path of an image.
        inside = not {'..', '', 'images'} & {*parts} and ':' not in parts[0]
        stem, ending = os.path.splitext('/'.join(parts) if inside else parts[-1])
        numbers = itertools.count(2)
        wanted = stem
        while wanted in taken:
            wanted = f'{stem}-{next(numbers)}'
        taken.add(wanted)
        paths[name] = wanted + ending
    return paths


def place_images(
    names: dict[str, str],
    root: str | Path,
    folder: str | Path,
    *,
    copy: bool,
    watch: Watch = iter,
) -> list[str]:
    """Link or copy images into a new folder.

    Args:
        names: see :func:`target_names`.
        root: where they are.
        folder: where they go; what is there already stays.
        copy: False makes symbolic links, or copies where the system has none.
        watch: is given the names, and gives them back.

    Returns:
        Those that do not exist.
    """
    missing = []
    for name in watch([*names]):
        source, place = Path(slashes(str(Path(root, name)))), Path(folder, names[name])
        if not source.is_file():
            missing.append(name)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            if copy or not _link(source, place):
                scratch = place.with_name(f'.{place.name}.part')
                shutil.copy2(source, scratch)
                scratch.replace(place)
    return missing


def _link(source: Path, place: Path) -> bool:
    """Whether a link could be made; Windows needs a right for it."""
    try:
        place.symlink_to(relative(str(source.resolve()), str(place.parent.resolve())))
    except OSError:
        return False
    return True
