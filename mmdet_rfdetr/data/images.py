"""Reading image files as they really are: turned, grey, CMYK, cut off, huge."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from .findings import Finding

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap the sides
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_OPPOSITE = {6: 8, 8: 6}  # quarter turns; every other orientation undoes itself
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class BadImageError(Exception):
    """An image file that cannot be used.

    Args:
        finding: which kind of fault it is.
        reason: what the decoder said.
    """

    def __init__(self, finding: Finding, reason: str) -> None:
        super().__init__(reason)
        self.finding = finding


def read_size(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Read an image's size from its header, without decoding pixels.

    Args:
        path: a local file.

    Returns:
        (height, width) as stored, and as shown by a viewer that follows the
        orientation in the EXIF data.

    Raises:
        BadImageError: if there is no image.
    """
    with _decoder_errors():  # a name can be too long, a folder closed
        if not Path(path).is_file():
            raise BadImageError(Finding.FILE_MISSING, 'does not exist')
        if Path(path).stat().st_size == 0:
            raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
    with _decoder_errors(), Image.open(path) as image:
        _, stored, shown = _read_header(image)
        return stored, shown


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


class ImageSource:
    """An image file of which so far the header is known.

    An orientation in the EXIF data is followed, as by viewers and by annotation
    tools, unless that contradicts ``stated``: then boxes were drawn on the pixels as
    stored.

    Args:
        data: content of the file, in any format that Pillow knows.
        stated: (height, width) that the annotations state.

    Attributes:
        shape: (height, width) of the whole image.

    Raises:
        BadImageError: if it is no image.
    """

    def __init__(self, data: bytes, stated: tuple[int, int] | None = None) -> None:
        if not data:
            raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
        with _decoder_errors():
            self._image = Image.open(io.BytesIO(data))
            orientation, stored, shown = _read_header(self._image)
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
        with _decoder_errors():
            if reduction > 1:
                width, height = self._image.size
                self._image.draft('RGB', (width // reduction, height // reduction))
            self._image.load()
            image = self._image
            if self._to_turn != 1:
                image.getexif()[_ORIENTATION] = self._to_turn
                image = ImageOps.exif_transpose(image)
            return _to_rgb(image)


def largest_reduction(shape: tuple[float, float], min_side: float) -> int:
    """By how much a JPEG may be decoded smaller.

    Args:
        shape: height and width of the part of the image that is needed.
        min_side: how long both sides must stay, in pixels.

    Returns:
        8, 4, 2 or 1, which decoders can do.
    """
    return next((k for k in (8, 4, 2) if min(shape) / k >= min_side), 1)


def decode_image(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file.

    Args:
        data: content of the file, see :class:`ImageSource`.
        size: (height, width) that the annotations state.

    Returns:
        (H, W, 3) uint8 in BGR order.

    Raises:
        BadImageError: if the file is cut off or no image.
    """
    image = ImageSource(data, size).decode()
    return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if image.mode.startswith('I'):  # 16-bit grey, which convert() would cut off
        grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert('RGB')
    if image.mode == 'P':
        image = image.convert('RGBA')
    return image if image.mode == 'RGB' else image.convert('RGB')


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Turn whatever Pillow raises for a bad file into a BadImageError."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise BadImageError(Finding.FILE_HUGE, str(error)) from error
    except _DECODER_ERRORS as error:
        raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error
