"""Deep images: pixels of more than 8 bits, whole numbers or floats, made 8 bits."""

import numpy as np

_DARK, _BRIGHT = 64, 191  # levels that a usable image passes
_CLIPPED = 0.01  # share of the pixels


def to_levels(
    pixels: np.ndarray, deep_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Convert deep pixels to levels of 0 to 255.

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


def range_problem(
    pixels: np.ndarray, deep_range: tuple[float, float] | None = None
) -> str | None:
    """Say whether little of an image is left in its levels.

    Args:
        pixels: see :func:`to_levels`; finite values are looked at.
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
