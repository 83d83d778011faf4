"""Looking at the image files of a data set before they are needed."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from mmengine import fileio
from PIL import Image

from ..data.images import ImageSource, Reading, naming_faults, open_image, sizes_of
from ..data.levels import to_levels
from ..errors import BadDataError, BadImageError
from .findings import Finding, Findings, finding_of

_DEEP_SAMPLES = 32  # deep images that are decoded, spread over the data set
_DARK, _BRIGHT = 64, 191  # levels that a usable image passes
_PARTS = 200  # that threads are given
_CLIPPED = 0.01  # share of the pixels


def is_url(name: str) -> bool:
    """Whether a file name would be asked from a server."""
    return '://' in name


def read_names(
    images: Sequence[dict], folder: str | None, findings: Findings
) -> list[dict]:
    """Take file names from another system, or of URLs, for what they mean.

    A name with backslashes or percent codes is the first of these paths that exists:
    itself, with slashes, without the codes, both. Elsewhere than on this machine
    looking has its price; slashes are surely meant, percent codes stay.

    Args:
        images: with ``file_name``.
        folder: where they are, on this machine, or None.
        findings: what is found is added here.

    Returns:
        The images with such names as can be opened.
    """
    read = []
    for image in images:
        name = meant = image['file_name']
        if '\\' in name or '%' in name:
            slashes, plain = name.replace('\\', '/'), unquote(name)
            paths = (name, slashes, plain, plain.replace('\\', '/'))
            exist = (path for path in paths if os.path.exists(Path(folder, path)))
            meant = slashes if folder is None else next(exist, name)
        if meant != name:
            findings.add(Finding.NAME_ESCAPED, f'{name} is {meant}')
            image = dict(image, file_name=meant)
        read.append(image)
    return read


def check_files(
    images: Sequence[dict],
    folder: str,
    findings: Findings,
    reading: Reading,
    *,
    headers: bool,
) -> list[dict]:
    """Leave out images of which the file is none.

    Args:
        images: with ``file_name``.
        folder: where they are, on this machine.
        findings: what is found is added here.
        reading: how pixels are read.
        headers: whether to look into the files. Without it, only names and files that
            could do harm are left out: a device never ends, a pipe waits for ever.

    Returns:
        The other images, with ``file_size`` if headers were looked at: see
        :func:`read_sizes`.
    """

    def look(image: dict) -> Any:
        if is_url(image['file_name']):
            raise BadImageError('remote', 'is a URL')
        path = os.path.join(folder, image['file_name'])
        if path[-1:] in './':  # the same file without it
            path = str(Path(path))
        return read_sizes(path, reading) if headers else require_file(path)

    usable, deep = [], []
    for image, seen in zip(images, in_threads(look, images), strict=True):
        is_bad = isinstance(seen, BadImageError)
        if is_bad and (headers or seen.kind in ('remote', 'special')):
            findings.add(finding_of(seen), image['file_name'])
        elif headers:
            sizes, is_deep = seen
            usable.append(dict(image, file_size=sizes))
            deep += [image['file_name']] * is_deep
        else:
            usable.append(image)
    _check_deep(deep, folder, findings, reading)
    return usable


def require_some(images: Sequence[dict], folder: str, backend_args: dict) -> None:
    """See that a storage has images, of which it lists none.

    Args:
        images: with ``file_name``; a few of them are looked for.
        folder: where they are.
        backend_args: of the storage, see ``mmengine.fileio``.

    Raises:
        BadDataError: if none of these can be read.
    """

    def look(path: str) -> None:
        with naming_faults():
            ImageSource(fileio.get(path, backend_args))

    paths = [os.path.join(folder, image['file_name']) for image in images]
    some = paths[:: len(paths) // 3 or 1]
    # One after the other: two threads would open a database of LMDB twice.
    problems = [next(in_threads(look, [path])) for path in some]
    if problems and all(problems):
        raise BadDataError(
            f'{paths[0]}: {problems[0]}; others cannot be read with {backend_args=} '
            'either: set data_root, data_prefix and backend_args to where they are.'
        )


def require_file(path: str) -> None:
    """Look at what a path names, without opening it: a pipe would wait for ever.

    Raises:
        BadImageError: if there is nothing, or no ordinary file with content.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImageError('missing', 'does not exist') from error
    except (OSError, ValueError) as error:  # a name can be too long, a folder closed
        raise BadImageError('unreadable', str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError('special', 'is a folder, device or pipe')
    if not status.st_size:
        raise BadImageError('empty', 'has zero bytes')


def read_sizes(
    path: str, reading: Reading
) -> tuple[tuple[tuple[int, int], tuple[int, int]], bool]:
    """Read what the header of an image says, without decoding pixels.

    Returns:
        (height, width) as stored and as shown, see
        :func:`~mmdet_rfdetr.data.images.sizes_of`, and whether the image is deep.

    Raises:
        BadImageError: if there is no image.
    """
    require_file(path)
    with naming_faults(), open_image(path, reading) as image:
        return sizes_of(image)[1:], _is_deep(image)


def _is_deep(image: Image.Image) -> bool:
    """Whether pixels have more than 8 bits, of which Pillow drops some of colours."""
    return image.mode[0] in 'IF' or ';16' in str(getattr(image, 'tile', ''))


def _check_deep(
    names: Sequence[str], folder: str, findings: Findings, reading: Reading
) -> None:
    """Decode some deep images, and find those that turn black or white."""

    def look(name: str) -> str | None:
        with naming_faults(), open_image(Path(folder, name), reading) as image:
            image.load()
            pixels = np.asarray(image)
        if pixels.dtype == np.uint8:  # what Pillow leaves of colours of 16 bits
            return range_problem(pixels[..., :3].astype(np.uint16) << 8, None)
        return range_problem(pixels, reading.deep_range)

    names = names[:: -(-len(names) // _DEEP_SAMPLES) or 1]
    for name, problem in zip(names, in_threads(look, names), strict=True):
        if isinstance(problem, str):  # and no error, which is found later
            findings.add(Finding.DEEP_PIXELS, f'{name} ({problem})')


def range_problem(
    pixels: np.ndarray, deep_range: tuple[float, float] | None
) -> str | None:
    """Say whether little of an image is left in its levels.

    Args:
        pixels: see :func:`~mmdet_rfdetr.data.levels.to_levels`; finite values are
            looked at.
        deep_range: likewise.

    Returns:
        Least and greatest value of an image that turns nearly black or nearly white, or
        of which more than 1 % lies above the default range; None of any other.
    """
    finite = pixels[np.isfinite(pixels)]
    if not finite.size or (low := finite.min()) == (high := finite.max()):
        return None  # nothing was there to be lost
    darkest, brightest = to_levels(np.array([low, high]), deep_range)
    white = 255 if pixels.dtype.kind == 'f' else 2**16 - 1
    is_clipped = deep_range is None and (finite > white).mean() > _CLIPPED
    if brightest >= _DARK and darkest <= _BRIGHT and not is_clipped:
        return None
    return f'{low:.4g} to {high:.4g}'


def in_threads(look: Callable, values: Sequence) -> Iterator:
    """Look at many values, with progress if it takes long.

    Yields:
        What ``look`` returns for each value, or its BadImageError.
    """
    from rfdetr_predict.progress import Progress

    def look_or_fail(value: Any) -> Any:
        try:
            return look(value)
        except BadImageError as error:
            return error

    # To hand over one by one would cost more than looking does.
    step = 1 + len(values) // _PARTS
    parts = [values[start : start + step] for start in range(0, len(values), step)]
    progress = Progress(len(values), len(values) <= _PARTS, 'images')
    with ThreadPoolExecutor() as pool:
        for part in pool.map(lambda part: [*map(look_or_fail, part)], parts):
            yield from part
            progress.step(len(part))
