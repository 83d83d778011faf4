"""Reading image files as they really are: turned, grey, CMYK, cut off, huge."""

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BadImageError, SettingError
from ..faults.findings import Finding
from .deep import range_problem, to_levels

FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'DIB', 'GIF', 'PPM', 'JPEG2000', 'AVIF'),
    *('DDS', 'PCX', 'SGI', 'TGA'),
)
"""What is read, by Pillow's names: pixels alone, nothing that runs other programs."""

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap the sides
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_OPPOSITE = {6: 8, 8: 6}  # quarter turns; every other orientation undoes itself
_PILLOWS_LIMIT = threading.Lock()
_OF_PILLOW = ('ignore', None, Warning, re.compile(r'PIL\b'), 0)  # as a warnings filter


@dataclass(frozen=True)
class Reading:
    """How pixels are read, the same in data sets, loaders and tools.

    Args:
        max_pixels: an image of more is a broken one. The default is where Pillow stops.
        deep_range: of an image of more than 8 bits, the values that become black and
            white, (0, 4095) for 12 bits. None: of whole numbers the upper 8 of 16 bits
            count, floats are 0 to 255, as in the official package.

    Raises:
        SettingError: if a bound is no number, or the range is none.
    """

    max_pixels: int = 178_956_970
    deep_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        try:
            low, high = (0, 1) if self.deep_range is None else self.deep_range
            valid = self.max_pixels >= 1 and -np.inf < low < high < np.inf
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise SettingError(
                'max_pixels has to be a number of pixels, and deep_range a pair of '
                f'values, the darker first; got max_pixels={self.max_pixels!r}, '
                f'deep_range={self.deep_range!r}'
            )


AS_OFFICIAL = Reading()


def require_file(path: str | Path, max_bytes: float = float('inf')) -> int:
    """Look at what a path names, without opening it: a pipe would wait for ever.

    Args:
        path: of this machine.
        max_bytes: the most that it may hold.

    Returns:
        Its size in bytes.

    Raises:
        BadImageError: if there is nothing, or no ordinary file, or more than that.
    """
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImageError(Finding.FILE_MISSING, 'does not exist') from error
    except (OSError, ValueError) as error:  # a name can be too long, a folder closed
        raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError(Finding.FILE_SPECIAL, 'is a folder, device or pipe')
    if status.st_size > max_bytes:
        raise BadImageError(
            Finding.FILE_HUGE, f'has {status.st_size} bytes, more than max_pixels need'
        )
    return status.st_size


def read_header(
    path: str, reading: Reading = AS_OFFICIAL
) -> tuple[tuple[tuple[int, int], tuple[int, int]], bool]:
    """Read what the header of an image says, without decoding pixels.

    Args:
        path: a local file.
        reading: its bound of pixels.

    Returns:
        What :func:`read_size` returns, and whether the image is deep.

    Raises:
        BadImageError: if there is no image.
    """
    if require_file(path) == 0:
        raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
    with _guarded(reading), _open(path) as image:
        _, stored, shown = _read_header(image)
        _check_pixels(image, stored, reading)
        return (stored, shown), _is_deep(image)


def read_size(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Read an image's size from its header.

    Args:
        path: a local file.

    Returns:
        (height, width) as stored, and as shown by a viewer that follows the
        orientation in the EXIF data.

    Raises:
        BadImageError: if there is no image.
    """
    return read_header(path)[0]


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(source: str | io.BytesIO) -> Image.Image:
    return Image.open(source, formats=_known_formats())


def _read_header(image: Image.Image) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Orientation, 1 to 8, and (height, width) as stored and as shown."""
    # Asking a PNG without EXIF data for them would decode it.
    has_exif = image.format != 'PNG' or 'exif' in image.info
    orientation = image.getexif().get(_ORIENTATION) if has_exif else 1
    if orientation not in range(1, 9):  # which Pillow ignores as well
        orientation = 1
    stored = image.size[::-1]
    if image.format == 'TIFF':  # of which Pillow tells the sides that are shown
        stored = image.tag_v2[_TIFF_HEIGHT], image.tag_v2[_TIFF_WIDTH]
    return orientation, stored, stored[::-1] if orientation >= 5 else stored


def _is_deep(image: Image.Image) -> bool:
    """Whether pixels have more than 8 bits, of which Pillow drops some of colours."""
    return image.mode[0] in 'IF' or ';16' in str(getattr(image, 'tile', ''))


def _check_pixels(
    image: Image.Image, stored: tuple[int, int], reading: Reading
) -> None:
    """Refuse more pixels than are wanted, or than the file has parts for."""
    height, width = stored
    if height * width > reading.max_pixels:
        raise BadImageError(
            Finding.FILE_HUGE,
            f'has {width} x {height} pixels, more than max_pixels={reading.max_pixels} '
            'of the loader',
        )
    parts = [part[1] for part in getattr(image, 'tile', ())]
    # Pillow leaves the rest black. A GIF may be smaller than its screen.
    if image.format == 'GIF' or not all(parts):
        return
    _, _, right, bottom = np.max(parts, 0) if parts else (0, 0, width, height)
    if right < width or bottom < height:
        raise BadImageError(
            Finding.FILE_UNREADABLE, f'lacks most of its {width} x {height} pixels'
        )


class ImageSource:
    """An image file of which so far the header is known.

    An orientation in the EXIF data is followed, as by viewers and by annotation
    tools, unless that contradicts ``stated``: then boxes were drawn on the pixels as
    stored.

    Args:
        data: content of the file, in one of ``FORMATS``.
        stated: (height, width) that the annotations state.
        reading: the bound of pixels, and the range of deep ones.

    Attributes:
        shape: (height, width) of the whole image.

    Raises:
        BadImageError: if it is no image.
    """

    def __init__(
        self,
        data: bytes,
        stated: tuple[int, int] | None = None,
        reading: Reading = AS_OFFICIAL,
    ) -> None:
        if not data:
            raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
        self._reading = reading
        with _guarded(reading):
            self._image = _open(io.BytesIO(data))
            orientation, stored, shown = _read_header(self._image)
            self.is_deep = _is_deep(self._image)
            # Pillow reads colours of 16 bits as their upper 8, OpenCV as they are.
            is_colour = self.is_deep and self._image.mode[0] not in 'IF'
            self._data = data if is_colour and reading.deep_range else None
        _check_pixels(self._image, stored, reading)
        self._orientation = orientation
        as_stored = stated == stored != shown
        self.shape = stored if as_stored else shown
        if self._image.format == 'TIFF':  # which Pillow turns while it loads
            undone = _OPPOSITE.get(orientation, orientation)
            self._to_turn = undone if as_stored else 1
        else:
            self._to_turn = 1 if as_stored else orientation

    def decode(self, reduction: int = 1) -> Image.Image:
        """Decode the pixels. Grey and CMYK become colour; of 16 bits the upper 8 count.

        Args:
            reduction: 1, 2, 4 or 8, by which the sides of a JPEG become shorter,
                which is much faster. Other formats come whole.

        Returns:
            An image in RGB.

        Raises:
            BadImageError: if the file is cut off or damaged.
        """
        with _guarded(self._reading):
            if reduction > 1:
                width, height = self._image.size
                self._image.draft('RGB', (width // reduction, height // reduction))
            image = self._image
            image.load()
            if self._data is not None:
                image = self._deep_colours()
            elif self._to_turn != 1:
                image.getexif()[_ORIENTATION] = self._to_turn
                image = ImageOps.exif_transpose(image)
            if image.mode[0] in 'IF':  # which convert() would cut off
                levels = to_levels(np.asarray(image), self._reading.deep_range)
                image = Image.fromarray(levels)
            elif image.mode == 'P':
                image = image.convert('RGBA')
            return image if image.mode == 'RGB' else image.convert('RGB')

    def _deep_colours(self) -> Image.Image:
        """Colours of 16 bits within ``deep_range``, in RGB."""
        code = np.frombuffer(self._data, np.uint8)
        pixels = cv2.imdecode(code, cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 3 or self._orientation != 1:
            raise ValueError(
                'deep_range is for upright colours of 16 bits, PNG or TIFF'
            )
        levels = to_levels(pixels[..., 2::-1], self._reading.deep_range)
        return Image.fromarray(levels)

    def range_problem(self) -> str | None:
        """Decode, and say which range a deep image has that turns black or white.

        Raises:
            BadImageError: if the file is cut off or damaged.
        """
        if self._data is not None:
            return None  # the range was set for it
        with _guarded(self._reading):
            self._image.load()
            pixels = np.asarray(self._image)
        if pixels.dtype == np.uint8:  # what Pillow leaves of colours of 16 bits
            pixels = pixels[..., :3].astype(np.uint16) << 8
        return range_problem(pixels, self._reading.deep_range)


def largest_reduction(shape: tuple[float, float], min_side: float) -> int:
    """By how much a JPEG may be decoded smaller.

    Args:
        shape: height and width of the part of the image that is needed.
        min_side: how long both sides must stay, in pixels.

    Returns:
        8, 4, 2 or 1, which decoders can do.
    """
    return next((k for k in (8, 4, 2) if min(shape) / k >= min_side), 1)


def decode_image(
    data: bytes,
    size: tuple[int, int] | None = None,
    reading: Reading = AS_OFFICIAL,
) -> np.ndarray:
    """Decode an image file.

    Args:
        data: content of the file, see :class:`ImageSource`.
        size: (height, width) that the annotations state.
        reading: the bound of pixels, and the range of deep ones.

    Returns:
        (H, W, 3) uint8 in BGR order.

    Raises:
        BadImageError: if the file is cut off or no image.
    """
    return to_bgr(ImageSource(data, size, reading).decode())


def to_bgr(image: Image.Image) -> np.ndarray:
    """Turn an image in RGB into an array (H, W, 3) in BGR order."""
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


@contextmanager
def _guarded(reading: Reading) -> Iterator[None]:
    """Turn whatever Pillow raises for a bad file into a BadImageError.

    Its warnings are left out, and its own bound gives way to a greater one.
    """
    # In threads, catch_warnings would leave its filters behind.
    warnings.filters.insert(0, _OF_PILLOW)
    try:
        with _larger_limit(reading.max_pixels):
            yield
    except BadImageError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        reason = str(error) or 'needs more memory than there is'
        raise BadImageError(Finding.FILE_HUGE, reason) from error
    except UnidentifiedImageError as error:
        reason = f'is no image in one of the formats {", ".join(_known_formats())}'
        raise BadImageError(Finding.FILE_UNREADABLE, reason) from error
    except Exception as error:  # decoders of some formats raise anything
        reason = str(error) or type(error).__name__
        raise BadImageError(Finding.FILE_UNREADABLE, reason) from error
    finally:
        with suppress(ValueError):  # someone else has set other filters
            warnings.filters.remove(_OF_PILLOW)


@contextmanager
def _larger_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open more pixels than it does by itself, within, if that is needed."""
    if max_pixels <= Reading.max_pixels:
        yield
        return
    with _PILLOWS_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
