"""Looking at the image files of a data set before they are needed."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..data.images import ImageSource, Reading, read_header, require_file
from ..data.loading import read_file
from ..errors import BadImageError
from .findings import Finding, Findings

_DEEP_SAMPLES = 32  # deep images that are decoded, spread over the data set


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
            slashes = name.replace('\\', '/')
            if folder is None:
                meant = slashes
            else:
                plain = unquote(name)
                paths = (name, slashes, plain, plain.replace('\\', '/'))
                exist = (path for path in paths if os.path.exists(Path(folder, path)))
                meant = next(exist, name)
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
        The other images, with ``file_size`` if headers were looked at: what
        :func:`~mmdet_rfdetr.data.images.read_size` returns.
    """

    def look(image: dict) -> Any:
        path = str(Path(folder, image['file_name']))
        if is_url(image['file_name']):
            raise BadImageError(Finding.FILE_REMOTE, 'is a URL')
        return read_header(path, reading) if headers else require_file(path)

    usable, deep = [], []
    for image, header in zip(images, _in_threads(look, images), strict=True):
        harms = (Finding.FILE_REMOTE, Finding.FILE_SPECIAL)
        is_bad = isinstance(header, BadImageError)
        if is_bad and (headers or header.finding in harms):
            findings.add(header.finding, image['file_name'])
        elif headers:
            size, is_deep = header
            usable.append(dict(image, file_size=size))
            deep += [image['file_name']] * is_deep
        else:
            usable.append(image)
    _check_deep(deep, folder, findings, reading)
    return usable


def _check_deep(
    names: Sequence[str], folder: str, findings: Findings, reading: Reading
) -> None:
    """Decode some deep images, and find those that turn black or white."""

    def look(name: str) -> str | None:
        data = read_file(str(Path(folder, name)), reading=reading)
        return ImageSource(data, reading=reading).range_problem()

    names = names[:: -(-len(names) // _DEEP_SAMPLES) or 1]
    for name, problem in zip(names, _in_threads(look, names), strict=True):
        if isinstance(problem, str):  # and no error, which is found later
            findings.add(Finding.DEEP_PIXELS, f'{name} ({problem})')


def _in_threads(look: Callable, values: Sequence) -> list:
    """What ``look`` returns for each value, or its BadImageError."""

    def look_or_fail(value: Any) -> Any:
        try:
            return look(value)
        except BadImageError as error:
            return error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(look_or_fail, values))
