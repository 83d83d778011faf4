"""Reading image files as they really are: turned, grey, CMYK, cut off, huge."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .findings import Finding

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap the sides
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)


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
    if not Path(path).is_file():
        raise BadImageError(Finding.FILE_MISSING, 'does not exist')
    if Path(path).stat().st_size == 0:
        raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
    with _decoder_errors(), Image.open(path) as image:
        stored = image.size[::-1]
        # Asking a PNG without EXIF data for them would decode it.
        known = image.format != 'PNG' or 'exif' in image.info
        turned = known and image.getexif().get(_ORIENTATION, 1) >= 5
        return stored, stored[::-1] if turned else stored


def decode_image(
    data: bytes,
    size: tuple[int, int] | None = None,
    min_side: int | None = None,
) -> np.ndarray:
    """Decode an image file.

    An orientation in the EXIF data is followed, as by viewers and by annotation
    tools, unless that contradicts ``size``: then boxes were drawn on the pixels as
    stored. Grey and CMYK images become colour; 16-bit ones keep the upper 8.

    Args:
        data: content of the file, in any format that Pillow knows.
        size: (height, width) that the annotations state.
        min_side: if given, JPEGs are decoded at 1/2, 1/4 or 1/8 of their size
            where both sides stay at least this long, which is much faster.

    Returns:
        (H, W, 3) uint8 in BGR order.

    Raises:
        BadImageError: if the file is cut off or no image.
    """
    if not data:
        raise BadImageError(Finding.FILE_EMPTY, 'has zero bytes')
    with _decoder_errors(), Image.open(io.BytesIO(data)) as image:
        stored = image.size[::-1]
        if min_side is not None:
            image.draft('RGB', (min_side, min_side))
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
        as_stored = orientation >= 5 and size == stored != stored[::-1]
        if orientation != 1 and not as_stored:
            image = ImageOps.exif_transpose(image)
        return np.ascontiguousarray(_to_rgb(image)[:, :, ::-1])


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert any mode to (H, W, 3) uint8."""
    if image.mode.startswith('I'):  # 16-bit grey, which convert() would cut off
        grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == 'P':
        image = image.convert('RGBA')
    return np.asarray(image.convert('RGB'))


class _decoder_errors:
    """Turn whatever Pillow raises for a bad file into a BadImageError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, Image.DecompressionBombError):
            raise BadImageError(Finding.FILE_HUGE, str(error)) from error
        if isinstance(error, _DECODER_ERRORS):
            raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error
