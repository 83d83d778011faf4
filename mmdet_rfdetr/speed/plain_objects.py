"""Objects of annotation files that need no second look, as nearly all do."""

from collections.abc import Hashable, Mapping

from ..data.annotations import PLAIN_CHECKS

_FAR, _LARGE = 1e9, 1e18  # pixels of a side, and of an area
_NEAR, _LONGEST = 10_000, 2_000_000  # pixels; what is drawn of any image
_NO_MASK: list = []


def is_plain(
    raw: dict,
    images: Mapping[Hashable, dict],
    categories: Mapping[Hashable, Hashable],
    used: set[Hashable],
) -> bool:
    """Whether there is nothing to say of an object, nor anything to complete.

    Nearly all are so, and there are millions. Whatever is in doubt is not.

    Args:
        raw: the object.
        images: by id, as ids compare; each with the ``id`` of the file.
        categories: ids of the file, likewise.
        used: ids of the objects before, to which that of a plain one is added.
    """
    get = raw.get
    try:
        x, y, width, height = box = raw['bbox']
        own_id, image_id, category_id = raw['id'], raw['image_id'], raw['category_id']
        is_plain = (
            -_FAR < x < _FAR
            and -_FAR < y < _FAR
            and 1 < width < _FAR
            and 0 < height < _FAR
            and type(box) is list
            and images[image_id]['id'] == image_id
            and categories[category_id] == category_id
            and type(own_id) is int
            and own_id not in used
            and -_LARGE < get('area', 0) < _LARGE
            and get('iscrowd', 0) == 0 == get('ignore', 0)
            and _is_plain_mask(get('segmentation', _NO_MASK))
        )
    except (KeyError, TypeError, ValueError):
        return False
    if is_plain:
        used.add(own_id)
    return is_plain


def _is_plain_mask(mask: list) -> bool:
    """Whether nothing is to be said of polygons, as of no mask.

    Raises:
        TypeError: if there is something else in one than numbers.
    """
    if type(mask) is not list:
        return False
    for polygon in mask:
        size = len(polygon)
        if size < 6 or size % 2 or type(polygon) is not list:
            return False
        low, high = min(polygon), max(polygon)
        is_near = low >= -_NEAR and 1 < high <= _NEAR
        # Extremes can miss what is no number; a sum cannot.
        if not (is_near and size * (high - low) <= _LONGEST and sum(polygon) < _LARGE):
            return False
    return True


PLAIN_CHECKS.append(is_plain)
