"""Pixels of any type made levels of 0 to 255."""

import numpy as np

from ..errors import SettingError


def to_levels(
    pixels: np.ndarray, deep_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert deep pixels, of more than 8 bits, to levels of 0 to 255.

    Args:
        pixels: of any shape, of whole numbers of 16 bits or more, or floats.
        deep_range: the values that become 0 and 255. None is what the official package
            does: of whole numbers the upper 8 of 16 bits count, floats are levels.

    Returns:
        uint8 of the same shape; NaN is 0.
    """
    if deep_range is not None:
        low, high = deep_range
        scaled = (pixels.astype(np.float32) - low) * (255 / (high - low))
        pixels = np.round(scaled)
    elif pixels.dtype.kind != 'f':
        pixels = pixels >> 8
    return np.nan_to_num(pixels.clip(0, 255)).astype(np.uint8)


def array_to_bgr(
    image: np.ndarray, deep_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Make an array what a file with the same pixels becomes.

    Args:
        image: (H, W) or (H, W, 1) grey, (H, W, 3) BGR or (H, W, 4) BGR and opacity,
            which is dropped. uint8 and other whole numbers of 0 to 255, bool, or deep:
            uint16 or floats.
        deep_range: see :class:`~mmdet_rfdetr.data.images.Reading`.

    Returns:
        (H, W, 3) uint8; ``image`` itself if it is that.

    Raises:
        SettingError: if it is no such array.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise SettingError(
            f'an image is an array of (height, width), maybe with 1, 3 or 4 channels '
            f'in the last place, BGR, and this one has the shape {image.shape}'
        )
    kind = image.dtype.kind
    is_set = deep_range is not None and kind in 'iu' and image.dtype != np.uint8
    if kind == 'b':
        image = image * np.uint8(255)
    elif kind == 'f' or image.dtype == np.uint16 or is_set:
        image = to_levels(image, deep_range)
    elif kind not in 'iu' or image.min() < 0 or image.max() > 255:
        raise SettingError(
            f'an image of {image.dtype} has to hold whole numbers of 0 to 255: give '
            'uint8, or uint16 or float32 with deep_range set in the loader'
        )
    image = image.astype(np.uint8, copy=False).reshape(*image.shape[:2], channels)
    return np.repeat(image, 3, 2) if channels == 1 else image[..., :3]
