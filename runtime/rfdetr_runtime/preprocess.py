"""From images to the input of a file: what evaluation does, or official ``predict``."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .errors import ModelFileError
from .metadata import PIXELS, Metadata

RESIZES = ('antialias', 'sample')


def prepare(
    images: Sequence[np.ndarray], metadata: Metadata, resize: str | None = None
) -> np.ndarray:
    """Make the input of a call.

    Args:
        images: (H, W, 3) uint8 in BGR, of any sizes.
        metadata: of the file.
        resize: ``'antialias'`` or ``'sample'``, see :class:`Metadata`; None is what
            the file says.

    Returns:
        What ``metadata.layout`` takes: (B, 3, h, w) float32, normalised or, for
        ``'deepstream'``, levels of 0 to 255; (B, h, w, 3) uint8 for ``'detections'``.
    """
    resize = resize or metadata.resize
    if resize not in RESIZES:
        raise ModelFileError(f'resize is one of {RESIZES}, and got {resize!r}')
    batch = np.stack([_resize(image, metadata.input_size, resize) for image in images])
    if metadata.channel_order == 'RGB':
        batch = batch[..., ::-1]
    if metadata.layout == 'detections':
        # Sampled levels are no whole ones, which is what such a file takes.
        whole = batch if batch.dtype == np.uint8 else np.rint(batch).astype(np.uint8)
        return np.ascontiguousarray(whole)
    batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)
    if metadata.layout not in PIXELS:
        mean, std = (
            np.asarray(values, np.float32).reshape(-1, 1, 1)
            for values in (metadata.mean, metadata.std)
        )
        batch -= mean
        batch /= std
    return batch


def _resize(image: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """(H, W, 3) to (h, w, 3): uint8 filtered, float32 sampled."""
    height, width = size
    if resize == 'antialias':
        picture = Image.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return sample(image.astype(np.float32), size)


def sample(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by bilinear sampling at pixel centres, as PyTorch does it.

    OpenCV rounds the places otherwise, by up to a hundredth of a level.

    Args:
        image: (H, W, ...) float32.
        size: new height and width.

    Returns:
        (h, w, ...) float32.
    """
    for axis, length in enumerate(size):
        low, high, share = taps(image.shape[axis], length)
        share = share.reshape((-1,) + (1,) * (image.ndim - 1 - axis))
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


def taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells that each of the ``new`` places lies between, and where.

    Args:
        old: cells.
        new: places.

    Returns:
        Lower and upper index (new,), and the share of the upper one, float32.
    """
    places = (np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5
    places = places.clip(min=0).astype(np.float32)
    low = np.minimum(places.astype(np.int64), old - 1)
    return low, np.minimum(low + 1, old - 1), places - low.astype(np.float32)
