"""Where pictures come from: files, folders, lists, COCO files, videos, cameras, arrays.

Whatever the source, one picture after the other is read when it is asked for.
"""

import glob
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from rfdetr_runtime import SourceError
from rfdetr_runtime.pictures import Picture, as_colours, read_or_say_why, read_picture

PICTURES = {
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.tif', '.tiff', '.bmp'),
    *('.dib', '.gif', '.ppm', '.pgm', '.pbm', '.pnm', '.jp2', '.avif', '.dds'),
    *('.pcx', '.sgi', '.tga'),
}
VIDEOS = {
    *('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv'),
    *('.flv', '.ts', '.3gp', '.ogv'),
}
"""Suffixes of what is taken from folders and globs."""
_CAMERA_RATE = 30.0


@dataclass
class _Item:
    """What is opened: a path, an address, a camera's number or an array."""

    place: str | int | np.ndarray
    image_id: int | None = None
    size: tuple[int, int] | None = None

    @property
    def is_video(self) -> bool:
        if isinstance(self.place, str):
            return '://' in self.place or Path(self.place).suffix.lower() in VIDEOS
        return isinstance(self.place, int)


@dataclass
class Sources:
    """All pictures of some sources, in order; can be iterated again.

    Args:
        sources: pictures, videos, folders (with all below), globs, ``.txt`` files with
            one source a line, COCO ``.json`` files, numbers of cameras, addresses of
            streams, and arrays (H, W, 3) or (H, W), BGR.
        root: folder of the pictures of lists and COCO files; that of the file, or for
            COCO files the one above it, if left out.

    Attributes:
        category_ids: ids by class name, of the first COCO file.

    Raises:
        SourceError: a source is not there or holds no picture.
    """

    sources: Sequence[str | int | Path | np.ndarray]
    root: str | None = None
    category_ids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for source in self.sources:
            if next(self._expand(source), None) is None:
                raise SourceError(
                    f'{source} holds no picture and no video: name a folder with '
                    f'some ({", ".join(sorted(PICTURES)[:6])}, ...), or a file.'
                )
        folders = {os.path.abspath(self._folder(each)) for each in self.sources}
        folders -= {os.path.abspath('')} if len(folders) > 1 else set()
        try:
            self._common = os.path.commonpath(folders)
        except ValueError:  # other drives
            self._common = None

    def __iter__(self) -> Iterator[Picture]:
        numbers = itertools.count(1)
        for item in self._items():
            if item.is_video:
                for picture in self._frames(item):
                    picture.image_id = next(numbers)
                    yield picture
                continue
            number = next(numbers)
            image_id = number if item.image_id is None else item.image_id
            read, name, more = as_colours, f'array-{number:06d}', ()
            if not isinstance(item.place, np.ndarray):
                read, name, more = read_picture, self._name(item.place), (item.size,)
            yield read_or_say_why(read, item.place, name, image_id, *more)

    def count(self) -> int | None:
        """Pictures and frames in all, or None where a source has no end."""
        total = 0
        for item in self._items():
            frames = _count_frames(item.place) if item.is_video else 1
            if frames is None:
                return None
            total += frames
        return total

    def _items(self) -> Iterator[_Item]:
        for source in self.sources:
            yield from self._expand(source)

    def _expand(self, source: str | int | Path | np.ndarray) -> Iterator[_Item]:
        if isinstance(source, np.ndarray | int):
            yield _Item(source)
            return
        source = os.fspath(source)
        path = Path(source)
        if source.isdecimal() and not path.exists():
            yield _Item(int(source))
        elif '://' in source:
            yield _Item(source)
        elif path.is_dir():
            for folder, below, files in os.walk(path):
                below.sort()
                for name in sorted(files):
                    if Path(name).suffix.lower() in PICTURES | VIDEOS:
                        yield _Item(os.path.join(folder, name))
        elif not path.is_file():
            found = sorted(glob.iglob(source, recursive=True))
            if not found:
                raise SourceError(f'{source} is not there (looked from {Path.cwd()}).')
            for each in found:
                if Path(each).suffix.lower() in PICTURES | VIDEOS:
                    yield _Item(each)
        elif path.suffix.lower() == '.txt':
            with open(path, encoding='utf-8') as lines:
                for line in filter(None, map(str.strip, lines)):
                    # With addresses and absolute paths, joining changes nothing.
                    joined = os.path.join(self.root or path.parent, line)
                    yield _Item(line if '://' in line else joined)
        elif path.suffix.lower() == '.json':
            yield from self._of_coco(path)
        else:
            yield _Item(source)

    def _of_coco(self, path: Path) -> Iterator[_Item]:
        images, categories = _read_coco(path)
        self.category_ids = self.category_ids or categories
        for image_id, name, size in images:
            folders = [self.root] if self.root else [path.parent, path.parent.parent]
            joined = [os.path.join(folder, name) for folder in folders]
            there = next(filter(os.path.exists, joined), joined[0])
            yield _Item(there, image_id, size)

    def _folder(self, source: str | int | Path | np.ndarray) -> str:
        """The folder that names of a source begin in."""
        if isinstance(source, np.ndarray | int) or '://' in os.fspath(source):
            return ''
        path = Path(source)
        if path.suffix.lower() in ('.txt', '.json') and path.is_file():
            first = next(self._expand(source)).place
            return self.root or os.path.dirname(first)
        while not path.is_dir() and path != path.parent:
            path = path.parent
        return str(path)

    def _name(self, place: str) -> str:
        """A name for a file that leads out of no folder."""
        if '://' in place:
            place = place.partition('://')[2].partition('?')[0].rpartition('@')[2]
            return place.strip('/').replace(':', '_').replace('/', '_') or 'stream'
        path = os.path.abspath(place)
        if self._common and path.startswith(os.path.join(self._common, '')):
            path = os.path.relpath(path, self._common)
        return Path(path).relative_to(Path(path).anchor).as_posix()

    def _frames(self, item: _Item) -> Iterator[Picture]:
        place = item.place
        is_camera = isinstance(place, int)
        name = f'camera-{place}' if is_camera else self._name(place)
        capture = cv2.VideoCapture(place)
        try:
            rate = capture.get(cv2.CAP_PROP_FPS)
            rate = rate if 0 < rate < 1000 else _CAMERA_RATE
            number, expected = 0, capture.get(cv2.CAP_PROP_FRAME_COUNT)
            while True:
                is_there, image = capture.read()
                if not is_there:
                    break
                image = as_colours(image)
                yield Picture(image, name, 0, None, number, number / rate, rate)
                number += 1
        finally:
            capture.release()
        if number == 0:
            kind = 'camera or stream' if is_camera or '://' in place else 'video'
            yield Picture(None, name, 0, f'{place}: no {kind} that can be read')
        elif number < 0.9 * expected:  # which some containers only estimate
            reason = f'{place}: ends after {number} of {expected:.0f} frames'
            yield Picture(None, name, 0, reason)


def _count_frames(place: str | int) -> int | None:
    """Frames of a video file; None of what has no end."""
    if isinstance(place, int) or '://' in place:
        return None
    capture = cv2.VideoCapture(place)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(count, 1)


@cache
def _read_coco(path: Path) -> tuple[list[tuple], dict[str, int]]:
    """Images (id, file name, (height, width)) and category ids by name."""
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
        images = [
            (each['id'], each['file_name'], (each.get('height'), each.get('width')))
            for each in document['images']
        ]
        kinds = document.get('categories', [])
        return images, {each['name']: each['id'] for each in kinds}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f'{path} is no COCO file, which has images with id and file_name: {error!r}'
        ) from error
