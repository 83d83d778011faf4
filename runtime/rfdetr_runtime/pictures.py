"""Pictures as the model sees them: files and arrays of any kind become BGR."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import SourceError

FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'DIB', 'GIF', 'PPM', 'JPEG2000', 'AVIF'),
    *('DDS', 'PCX', 'SGI', 'TGA'),
)
"""What is read as a picture, by Pillow's names: nothing that runs other programs."""
_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 swap the sides


@dataclass
class Picture:
    """One picture, or one frame of a video.

    Attributes:
        image: (H, W, 3) uint8 in BGR; None where it could not be read.
        name: of the file, relative to the folder that all sources have in common; of
            a frame, that of the video.
        image_id: id in a COCO file, otherwise a running number from 1.
        error: why there is no image.
        frame: number within a video from 0, None of other pictures.
        seconds: since the video began.
        rate: frames a second of the video.
    """

    image: np.ndarray | None
    name: str
    image_id: int = 0
    error: str | None = None
    frame: int | None = None
    seconds: float | None = None
    rate: float | None = None

    @property
    def label(self) -> str:
        """The name, with the frame where there is one."""
        return self.name if self.frame is None else f'{self.name}, frame {self.frame}'


def read_or_say_why(
    read: Callable, place: str | np.ndarray, name: str, image_id: int, *rest
) -> Picture:
    """Read one picture; whatever is wrong with it becomes its error.

    Args:
        read: :func:`read_picture` or :func:`as_colours`.
        place: what it is called with, before ``rest``.
        name: of the picture.
        image_id: likewise.
        *rest: more arguments.
    """
    try:
        return Picture(read(place, *rest), name, image_id)
    except Exception as error:  # decoders of some formats raise anything
        reason = str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = 'does not exist'
        elif isinstance(error, UnidentifiedImageError):
            reason = f'is no image in one of the formats {", ".join(_known_formats())}'
        return Picture(None, name, image_id, f'{name}: {reason}')


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def read_picture(path: str, stated: tuple[int, int] | None = None) -> np.ndarray:
    """Read a picture with the pixels that training and evaluation see.

    The EXIF orientation is followed unless ``stated`` contradicts it, palettes, grey
    and CMYK become colours, and of 16 bits the upper 8 count.

    Args:
        path: of a file.
        stated: (height, width) that annotations state.

    Returns:
        (H, W, 3) uint8 in BGR.

    Raises:
        OSError: if it is not there, cut off or no picture; Pillow may raise others.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError('is a folder, device or pipe')
    data = Path(path).read_bytes()
    if not data:
        raise OSError('has zero bytes')
    with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
        is_tiff = image.format == 'TIFF'  # which Pillow turns itself
        has_exif = image.format != 'PNG' or 'exif' in image.info
        turn = image.getexif().get(_ORIENTATION) if has_exif and not is_tiff else 1
        stored = image.size[::-1]
        contradicted = turn in range(5, 9) and stated == stored != stored[::-1]
        image.load()
        if turn in range(2, 9) and not contradicted:
            image = ImageOps.exif_transpose(image)
        if image.mode[0] in 'IF':
            image = Image.fromarray(_levels(np.asarray(image)))
        elif image.mode == 'P':
            image = image.convert('RGBA')
        image = image if image.mode == 'RGB' else image.convert('RGB')
        return cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2BGR)


def as_colours(image: np.ndarray) -> np.ndarray:
    """Make an array what a file with the same pixels becomes.

    Args:
        image: (H, W) or (H, W, 1) grey, (H, W, 3) BGR or (H, W, 4) BGR and opacity;
            uint8, bool, or deep: uint16 or floats of 0 to 255.

    Returns:
        (H, W, 3) uint8.

    Raises:
        SourceError: if it is no such array.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise SourceError(
            'an image is an array of (height, width), maybe with 1, 3 or 4 channels in '
            f'the last place, BGR, and this one has the shape {image.shape}'
        )
    if image.dtype == bool:
        image = image * np.uint8(255)
    elif image.dtype == np.uint16 or image.dtype.kind == 'f':
        image = _levels(image)
    elif image.dtype.kind not in 'iu' or image.min() < 0 or image.max() > 255:
        raise SourceError(
            f'an image of {image.dtype} has to hold whole numbers of 0 to 255'
        )
    image = image.astype(np.uint8, copy=False).reshape(*image.shape[:2], channels)
    return np.repeat(image, 3, 2) if channels == 1 else image[..., :3]


def _levels(pixels: np.ndarray) -> np.ndarray:
    """Deep pixels as levels of 0 to 255, uint8."""
    if pixels.dtype.kind != 'f':
        pixels = pixels >> 8
    return np.nan_to_num(pixels.clip(0, 255)).astype(np.uint8)
