"""Whether the mask of an annotation can be drawn, before pycocotools draws it."""

import reprlib
from collections.abc import Sequence

import numpy as np

from ..data.annotations import MASK_CHECKS

_FARTHEST = 300_000  # pixels, of any image
_LONGEST = 2_000_000
_MOST_PIXELS = 2**31  # that pycocotools can count


def mask_problem(
    segmentation: object, height: int | None, width: int | None
) -> str | None:
    """Say what is wrong with the mask of an object.

    Polygons may have several parts and leave the image; run lengths may be
    compressed or not.

    Args:
        segmentation: what COCO's key of this name holds, or None.
        height: of the image, None if it is not known.
        width: of the image, None if it is not known.

    Returns:
        The problem, or None if the mask can be drawn.
    """
    if isinstance(segmentation, dict):
        return _run_length_problem(segmentation, height, width)
    polygons = [*filter(is_polygon, segmentation or ())]
    if not polygons:
        return 'no mask of three points or more'
    if not any(is_near(polygon, height, width) for polygon in polygons):
        return 'a mask far from its image'
    return None


MASK_CHECKS.append(mask_problem)


def is_polygon(numbers: Sequence[float]) -> bool:
    """Whether numbers can be x1, y1, x2, y2 and so on of three points or more."""
    return len(numbers) >= 6 and len(numbers) % 2 == 0


def is_near(polygon: Sequence[float], height: int | None, width: int | None) -> bool:
    """Whether a polygon can be drawn at a cost that its image deserves.

    pycocotools takes 40 bytes for every pixel of the outline, outside the image too.

    Args:
        polygon: finite numbers, x1, y1, x2, y2 and so on.
        height: of the image, None if it is not known.
        width: likewise.

    Returns:
        False if a point lies more than ten sides of the image away (of an image of 1000
        pixels at least), or the outline has more than two million pixels.
    """
    reach = min(10 * max(height or 0, width or 0, 1000), _FARTHEST)
    low, high = min(polygon), max(polygon)
    if low < -reach or high > reach:
        return False
    if len(polygon) * (high - low) <= _LONGEST:  # more than the outline can have
        return True
    points = np.array(polygon).reshape(-1, 2)
    steps = np.abs(np.roll(points, 1, 0) - points).max(1)
    return steps.sum() <= _LONGEST


def _run_length_problem(
    mask: dict, height: int | None, width: int | None
) -> str | None:
    size, counts = mask.get('size'), mask.get('counts')
    if size is None or counts is None:
        return "a run-length mask without 'counts' or 'size'"
    try:
        if None not in (height, width) and list(size) != [height, width]:
            return (
                f'a run-length mask of height and width {reprlib.repr(size)} in an '
                f'image of {[height, width]}'
            )
        is_text = isinstance(counts, (str, bytes))
        runs = decode_runs(counts) if is_text else np.array(counts)
        rows, columns = size
        pixels = int(rows) * int(columns)
    except (TypeError, ValueError, LookupError, OverflowError, RecursionError):
        return 'damaged run lengths'
    if runs.dtype.kind not in 'iuf' or runs.ndim != 1 or (runs % 1).any():
        return 'run lengths that are no list of whole numbers'
    if pixels > _MOST_PIXELS:
        return f'a run-length mask of {pixels} pixels'
    if (runs < 0).any():
        return f'a negative run length, {runs.min():.0f}'
    if runs.sum() != pixels:
        return f'run lengths that sum to {runs.sum():.0f}, not {pixels}'
    return None


def decode_runs(text: str | bytes) -> np.ndarray:
    """Read COCO's compressed run lengths; pycocotools reads damaged ones unchecked.

    A number is written in pieces of five bits, the lowest first, as the characters
    from "0" on; a sixth bit says that more follow, and the highest bit of the last
    piece is the sign. From the fourth number on it is the difference to the number
    two places before.

    Args:
        text: ``counts`` of a compressed mask.

    Returns:
        The run lengths, int64.

    Raises:
        ValueError: if the text is damaged.
    """
    code = text if isinstance(text, bytes) else text.encode()
    pieces = np.frombuffer(code, np.uint8).astype(np.int64) - ord('0')
    is_last = (pieces & 0x20) == 0
    if not code or not is_last[-1] or ((pieces < 0) | (pieces > 63)).any():
        raise ValueError('cut off, or with other characters')
    ends = is_last.nonzero()[0]
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 34 bits: no image has so many pixels
        raise ValueError('a number that is too large')
    shifts = 5 * (np.arange(len(pieces)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((pieces & 0x1F) << shifts, starts)
    is_negative = (pieces[ends] & 0x10) != 0
    runs[is_negative] -= 1 << (5 * lengths[is_negative])
    # The second and the third number are the first of their differences.
    for start in (1, 2):
        runs[start::2] = runs[start::2].cumsum()
    return runs
