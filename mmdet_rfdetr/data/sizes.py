"""The input sizes of multi-scale training."""

from collections.abc import Sequence

from ..errors import SettingError


def multi_scale_sizes(
    image_size: int,
    size_divisor: int | None = None,
    offsets: Sequence[int] | None = None,
) -> list[int]:
    """Compute the sizes around ``image_size`` that the network can take.

    Args:
        image_size: the size without multi-scale, in pixels.
        size_divisor: what a size must divide by, patch size times windows; needed
            with ``offsets``.
        offsets: how many divisors smaller or larger than ``image_size``. The
            official ones are -5 to 5 ("expanded", the default) and -3 to 4. None is
            ``image_size`` alone.

    Returns:
        One size for each offset, without those below two divisors.

    Raises:
        SettingError: if there is no ``size_divisor``, or no size is left.
    """
    if offsets is None:
        return [image_size]
    if size_divisor is None:
        raise SettingError(
            f'{offsets=} needs size_divisor, the patch size times the windows'
        )
    base = image_size // size_divisor
    sizes = [(base + offset) * size_divisor for offset in offsets]
    sizes = [size for size in sizes if size >= 2 * size_divisor]
    if not sizes:
        raise SettingError(
            f'image_size={image_size} with size_divisor={size_divisor} leaves no size '
            f'for offsets={tuple(offsets)}: raise image_size to {2 * size_divisor} '
            'or more'
        )
    return sizes
