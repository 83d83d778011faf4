"""Reading image files: turned, grey, CMYK, deep; cut off ones are an error."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BadImageError, SettingError
from .levels import to_levels

FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'DIB', 'GIF', 'PPM', 'JPEG2000', 'AVIF'),
    *('DDS', 'PCX', 'SGI', 'TGA'),
)
"""What is read, by Pillow's names: pixels alone, nothing that runs other programs."""

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap the sides
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101

# Of damaged or large files, which are read, or an error that names them. Here, because
# in threads catch_warnings would leave its filters behind.
warnings.filterwarnings('ignore', module=r'PIL\b')


@dataclass(frozen=True)
class Reading:
    """How pixels are read, the same in data sets, loaders and tools.

    Args:
        max_pixels: an image of more is a broken one. The default is where Pillow stops;
            more than that raises ``PIL.Image.MAX_IMAGE_PIXELS`` as well.
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
                f'values, the darker first; got {self}'
            )


AS_OFFICIAL = Reading()


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that the installed Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def naming_faults(path: str | None = None) -> Iterator[None]:
    """Turn whatever is raised for a bad file into a BadImageError.

    Args:
        path: of the file, for the message, where more is done than to decode it. Then
            only what reading and decoding raise is turned.
    """
    try:
        yield
    except Exception as error:  # decoders of some formats raise anything
        of_reading = isinstance(error, BadImageError | OSError | KeyError | ValueError)
        if path and not of_reading:
            raise
        kind, reason = 'unreadable', str(error) or type(error).__name__
        if isinstance(error, BadImageError):
            kind = error.kind
        elif isinstance(error, FileNotFoundError):
            kind, reason = 'missing', 'does not exist'
        elif isinstance(error, UnidentifiedImageError):
            reason = f'is no image in one of the formats {", ".join(_known_formats())}'
        elif isinstance(error, Image.DecompressionBombError | MemoryError):
            kind = 'huge'
        raise BadImageError(kind, f'{path}: {reason}' if path else reason) from error


def open_image(
    source: str | Path | io.BytesIO, reading: Reading = AS_OFFICIAL
) -> Image.Image:
    """Open an image file without decoding its pixels.

    Args:
        source: the file.
        reading: its bound of pixels.

    Raises:
        BadImageError: if it has more pixels; Pillow's own errors otherwise, see
            :func:`naming_faults`.
    """
    if reading.max_pixels > Reading.max_pixels:
        Image.MAX_IMAGE_PIXELS = reading.max_pixels
    image = Image.open(source, formats=_known_formats())
    if image.width * image.height > reading.max_pixels:
        image.close()
        raise BadImageError(
            'huge',
            f'has {image.width} x {image.height} pixels, more than '
            f'max_pixels={reading.max_pixels} of the loader',
        )
    return image


def sizes_of(image: Image.Image) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Read how an image is turned.

    Args:
        image: opened, maybe not yet decoded.

    Returns:
        The orientation, 1 to 8, and (height, width) as stored and as shown by a viewer
        that follows it. A TIFF counts as stored as it is shown.
    """
    # Asking a PNG without EXIF data for them would decode it.
    has_exif = image.format != 'PNG' or 'exif' in image.info
    orientation = image.getexif().get(_ORIENTATION) if has_exif else 1
    if orientation not in range(1, 9):  # which Pillow ignores as well
        orientation = 1
    stored = image.size[::-1]
    if image.format == 'TIFF':  # Pillow turns it, and may tell either size before
        stored = image.tag_v2[_TIFF_HEIGHT], image.tag_v2[_TIFF_WIDTH]
    shown = stored[::-1] if orientation >= 5 else stored
    return (1, shown, shown) if image.format == 'TIFF' else (orientation, stored, shown)


class ImageSource:
    """An image file of which so far the header is known.

    An orientation in the EXIF data is followed, as by viewers and by annotation
    tools, unless that contradicts ``stated``: then boxes were drawn on the pixels as
    stored. TIFFs are always turned, by Pillow.

    Args:
        data: content of the file, in one of ``FORMATS``; None from a storage that does
            not have it.
        stated: (height, width) that the annotations state.
        reading: the bound of pixels, and the range of deep ones.

    Attributes:
        shape: (height, width) of the whole image.
        image: Pillow's, not yet decoded.

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
            raise BadImageError('empty', 'absent' if data is None else 'has zero bytes')
        self._reading = reading
        with naming_faults():
            self.image = open_image(io.BytesIO(data), reading)
            orientation, stored, shown = sizes_of(self.image)
        as_stored = stated == stored != shown
        self.shape = stored if as_stored else shown
        self._is_turned = orientation != 1 and not as_stored

    def decode(self) -> Image.Image:
        """Decode the pixels. Grey and CMYK become colour; of 16 bits the upper 8 count.

        Returns:
            An image in RGB.

        Raises:
            BadImageError: if the file is cut off or damaged.
        """
        image = self.image
        with naming_faults():
            image.load()
            if self._is_turned:
                image = ImageOps.exif_transpose(image)
            if image.mode[0] in 'IF':  # which convert() would cut off
                levels = to_levels(np.asarray(image), self._reading.deep_range)
                image = Image.fromarray(levels)
            elif image.mode == 'P':
                image = image.convert('RGBA')
            return image if image.mode == 'RGB' else image.convert('RGB')


def decode_image(
    data: bytes, size: tuple[int, int] | None = None, reading: Reading = AS_OFFICIAL
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
    pixels = np.asarray(ImageSource(data, size, reading).decode())
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
