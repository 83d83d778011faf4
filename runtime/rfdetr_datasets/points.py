"""Points of objects: how many a class has, their names, and which are its sides."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .files import DatasetError

SIDES = {'left': 'right', 'right': 'left'}
_MOST = 10_000  # points of a class: each gets a name
_PAIRS = 'eye', 'ear', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle'
COCO_NAMES = ['nose', *(f'{side}_{part}' for part in _PAIRS for side in SIDES)]
"""Of COCO's 17 points of persons."""
COCO_LINES = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7)),
    *((6, 8), (7, 9), (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5)),
    *((4, 6), (5, 7)),
)
"""Between them, counted from 1 as COCO does."""


class PointScheme(NamedTuple):
    """Points as the ``data.yaml`` of a YOLO data set has them, for all its classes.

    Args:
        names: of the points.
        swap: the point that each becomes in a mirror; None if that is not known.
        numbers: how many a line has for each, x and y or x, y and visibility.
    """

    names: list[str]
    swap: list[int] | None
    numbers: int = 3


def swapped_names(names: Sequence[str]) -> tuple[list[int] | None, list[str]]:
    """Find the point that each point becomes in a mirror, by the official rule.

    Names are compared in lower case, with anything between words as one sign; a name
    has a side if just one of its words is ``left`` or ``right``.

    Args:
        names: of the points of a class.

    Returns:
        Indices, None where there is no pair, or a name twice; and names of a side whose
        partner is missing.
    """
    clean = [re.sub('[^a-z0-9]+', '_', name.lower()).strip('_') for name in names]
    swapped, alone = list(range(len(clean))), []
    for index, name in enumerate(clean):
        words = name.split('_')
        if sum(word in SIDES for word in words) != 1:
            continue
        other = '_'.join(SIDES.get(word, word) for word in words)
        if other in clean:
            swapped[index] = clean.index(other)
        else:
            alone.append(names[index])
    is_clear = len(set(clean)) == len(clean) and swapped != list(range(len(clean)))
    return (swapped if is_clear else None), alone


def agreed_swap(lists: Iterable[Sequence[str]]) -> list[int] | None:
    """The point that each becomes in a mirror, one list for several classes.

    Args:
        lists: names of the points of each class.

    Returns:
        That of the class with the most points; None where one class has no pairs, or
        two disagree.
    """
    swaps = [swapped_names(names)[0] for names in lists]
    if not swaps or None in swaps:
        return None
    longest = max(swaps, key=len)
    agree = all(part == longest[: len(part)] for part in swaps)
    return longest if agree else None


def is_swap(values: Any, count: int) -> bool:
    """Whether something has each number below ``count`` once, in pairs."""
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    whole = all(isinstance(n, int) and 0 <= n < count for n in values)
    return whole and all(values[n] == place for place, n in enumerate(values))


def points_of_categories(
    categories: Iterable[Mapping], annotations: Iterable[Mapping]
) -> dict[str, list[str]]:
    """Names of the points of each category, by the name of the category.

    Where the file names none, there are as many as the longest annotation has.
    """
    longest: dict[Any, int] = {}
    for annotation in annotations:
        count = len(_list_of(annotation, 'keypoints')) // 3
        key = str(annotation.get('category_id'))
        longest[key] = max(count, longest.get(key, 0))
    found = {}
    for category in categories:
        count = longest.get(str(category.get('id')), 0)
        names = _list_of(category, 'keypoints') or range(count)
        found[str(category.get('name'))] = [*map(str, names)]
    return found


def stated_swap(categories: Iterable[Mapping]) -> list[int] | None:
    """``flip_indices`` of the categories, which COCO has not.

    None unless all that have points state the same: it is done to all of them.
    """
    keys = 'flip_indices', 'keypoints'
    stated = ([_list_of(part, key) for key in keys] for part in categories)
    found = [swap for swap, names in stated if swap or names]
    first = found[0] if found else []
    return first if first and all(swap == first for swap in found) else None


def stated_lines(categories: Iterable[Mapping], count: int) -> list[list[int]]:
    """``skeleton`` of the first category that has one, as pairs of numbers from 0 on.

    Args:
        categories: of a COCO file, which counts from 1.
        count: points there are; lines to others are left out.
    """
    found = [x for part in categories if (x := _list_of(part, 'skeleton'))]
    known = range(1, count + 1)
    return [
        [end - 1 for end in line]
        for line in (found[0] if found else ())
        if isinstance(line, list) and len(line) == 2 and all(x in known for x in line)
    ]


def _list_of(entry: Mapping, key: str) -> list:
    """What an entry of a file has under a key, empty unless it is a list."""
    return entry[key] if isinstance(entry.get(key), list) else []


def names_and_lines(metainfo: Mapping, count: int) -> tuple[list[str], list[list[int]]]:
    """Names of points, and pairs of numbers of those that lines join.

    Args:
        metainfo: with MMPose's ``keypoint_info`` and ``skeleton_info``, if any.
        count: points there are; without ``keypoint_info``, 17 are those of COCO.
    """
    points = metainfo.get('keypoint_info') or {}
    if not points and count == len(COCO_NAMES):
        return COCO_NAMES, [[a - 1, b - 1] for a, b in COCO_LINES]
    names = [points[number]['name'] for number in sorted(points)]
    lines = (metainfo.get('skeleton_info') or {}).values()
    return names, [[names.index(end) for end in line['link']] for line in lines]


def read_scheme(settings: Mapping, path: str) -> PointScheme | None:
    """``kpt_shape``, ``flip_idx`` and ``kpt_names`` of a ``data.yaml``.

    Args:
        settings: of the file, with texts for numbers.
        path: of the file, for messages.

    Returns:
        None without ``kpt_shape``.

    Raises:
        DatasetError: if one of them is not as it has to be.
    """
    if not settings.get('kpt_shape'):
        return None
    shape = whole_numbers(settings['kpt_shape'])
    if not (shape and len(shape) == 2 and 0 < shape[0] <= _MOST and shape[1] in (2, 3)):
        raise DatasetError(
            f'kpt_shape of {path} must be the number of points and 2 or 3, as [17, 3], '
            f'not {settings["kpt_shape"]!r}.'
        )
    count, numbers = shape
    swap = settings.get('flip_idx') or None
    if swap and not is_swap(whole_numbers(swap), count):
        raise DatasetError(
            f'flip_idx of {path} must have each number from 0 to {count - 1} once, the '
            f'point that each becomes in a mirror, not {swap!r}.'
        )
    names = settings.get('kpt_names') or [f'keypoint_{n}' for n in range(count)]
    if isinstance(names, dict):  # by class; all have the same points
        names = next(iter(names.values()))
    if not isinstance(names, list) or len(names) != count:
        raise DatasetError(
            f'kpt_names of {path} must name each of the {count} points, not {names!r}.'
        )
    return PointScheme([*map(str, names)], whole_numbers(swap), numbers)


def whole_numbers(texts: Any) -> list[int] | None:
    """The numbers of a list of texts; None if one is not, or it is no list."""
    words = [str(text).strip() for text in texts] if isinstance(texts, list) else ['']
    # Python reads no numbers of thousands of digits.
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        return None
    return [*map(int, words)]
