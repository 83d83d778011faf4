"""Folders, texts and image headers, on any system that may have written them."""

import codecs
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIXES = (
    *('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.dib', '.tif', '.tiff', '.gif'),
    *('.ppm', '.pgm', '.jp2', '.avif', '.dds', '.pcx', '.sgi', '.tga', '.mpo'),
)
"""Ends of the names of images, in lower case."""
SPLITS = dict(
    train=('train', 'training'),
    val=('val', 'valid', 'validation'),
    test=('test', 'testing'),
)
"""The three parts of a data set, and how others call them."""
Watch = Callable[[list], Iterable]
"""Gives back what it is given, one by one; may show how far it is."""
_UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 0x0100, 0x0101


class DatasetError(Exception):
    """A data set that cannot be read or written; one sentence says why."""


def read_text(path: str | Path, *, errors: str = 'strict') -> str:
    """Read a text in UTF-8, or in UTF-16 where a byte-order mark says so.

    Args:
        path: the file.
        errors: ``'replace'`` reads on where bytes are no text.

    Raises:
        DatasetError: if it cannot be opened or is in another encoding.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f'{path} cannot be read: {error.strerror}.') from error
    encoding = 'utf-16' if data.startswith(_UTF_16) else 'utf-8-sig'
    try:
        return data.decode(encoding, errors=errors)
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise DatasetError(
            f'Line {line} of {path} is not in UTF-8: save the file in that encoding.'
        ) from error


def split_of(name: str) -> str | None:
    """Which of ``SPLITS`` the name of a file or folder says, as ``instances_val2017``.

    None where it says none, or several.
    """
    words = set(re.findall('[a-z]+', name.lower()))
    found = [split for split, names in SPLITS.items() if words & set(names)]
    return found[0] if len(found) == 1 else None


def slashes(path: str) -> str:
    """A path as Windows writes it, with slashes."""
    return path if os.path.exists(path) else path.replace('\\', '/')


def is_image(name: str) -> bool:
    """Whether the name of a file ends as those of images do."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def list_files(folder: str | Path, wanted: Callable[[str], bool]) -> list[str]:
    """Paths of all files below a folder whose names are wanted, sorted."""
    found, seen = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        # Names that begin with a dot are of the system, or of editors.
        names = [name for name in names if name[0] != '.' and wanted(name)]
        folders[:] = [name for name in folders if name[0] != '.']
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()  # a link, maybe to a folder that it lies in
            continue
        seen.add(real)
        found += [os.path.join(parent, name) for name in names]
    return sorted(found)


def relative(path: str, folder: str) -> str:
    """A path as it is written below a folder, with slashes; maybe with ``..``."""
    try:
        return os.path.relpath(path, folder).replace(os.sep, '/')
    except ValueError:  # on another drive
        return os.path.abspath(path)


def read_size(path: str) -> tuple[int, int] | None:
    """(height, width) of an image as viewers show it; None if it cannot be read."""
    import PIL.Image

    try:
        # A pipe would wait for ever.
        if not os.path.isfile(path):
            return None
        with PIL.Image.open(path) as image:
            width, height = image.size
            has_exif = image.format != 'PNG' or 'exif' in image.info
            turned = has_exif and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            if image.format == 'TIFF':  # Pillow may tell either size before it decodes
                width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
            return (width, height) if turned else (height, width)
    except Exception:  # decoders raise anything
        return None


def read_sizes(paths: list[str]) -> Iterator[tuple[int, int] | None]:
    """Sizes of many images, see :func:`read_size`."""
    step = 4096  # that wait at a time, of what may be millions
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), step):
            yield from pool.map(read_size, paths[start : start + step])


def image_entry(number: int, name: str, size: tuple[int, int] | None) -> dict:
    """The entry of an image in ``images``; without a size, both sides are None."""
    height, width = size or (None, None)
    return dict(id=number, file_name=name, height=height, width=width)


def index_images(folders: Iterable[str]) -> dict[str, str]:
    """Paths of images by their names and by their names without ending.

    Of several with one name, the first of the first folder. Folders that are not there
    hold none.
    """
    found: dict[str, str] = {}
    for folder in folders:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        for name in filter(is_image, names):
            path = os.path.join(folder, name)
            found.setdefault(name, path)
            found.setdefault(os.path.splitext(name)[0], path)
    return found
