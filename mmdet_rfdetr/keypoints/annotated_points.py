"""Points of annotation files: how many a class has, their names, and their sides."""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
from rfdetr_datasets.points import agreed_swap, is_swap, stated_lines, stated_swap

from ..errors import SettingError


class PointFinding(Enum):
    """What is found in the points of a file: what it is, what is done about it."""

    LENGTH = 'object with another number of points than its class', 'cut or filled up'
    VISIBILITY = 'point whose visibility is not 0, 1 or 2', 'taken as 2, below 0 as 0'
    OUTSIDE = 'labelled point outside its image', 'point left out'
    BROKEN = 'object whose points are not numbers', 'kept without points'
    PARTNER = 'point named after a side, of which the other is missing', 'kept', False

    def __init__(self, what: str, done: str, fault: bool = True) -> None:
        self.what = what
        self.done = done
        self.fault = fault


def complete_metainfo(
    metainfo: Mapping,
    points: Mapping[str, Sequence[str]],
    categories: Sequence[Mapping] = (),
) -> dict[str, Any]:
    """What is known of points, in the form of MMPose's metainfo.

    Args:
        metainfo: with ``classes`` and, where given, ``keypoint_info``,
            ``skeleton_info``, ``flip_indices`` and ``sigmas``, which win.
        points: names of those of each class.
        categories: of the file, with lines between points.

    Returns:
        ``num_keypoints`` of each label, ``keypoint_info``, ``skeleton_info`` and
        ``flip_indices``, None where no pairs are known.

    Raises:
        SettingError: if there are none, metainfo and file have other numbers of
            points, or metainfo names one that there is not.
    """
    _require_form(metainfo)
    info, classes = metainfo.get('keypoint_info'), metainfo['classes']
    own = [part for part in categories if str(part.get('name')) in classes]
    counts = [len(points.get(name, ())) for name in classes]
    lists = [points[name] for name in classes if points.get(name)]
    flip = metainfo.get('flip_indices')
    if info:
        entries = [info[index] for index in sorted(info)]
        names = [entry['name'] for entry in entries]
        if any(count not in (0, len(names)) for count in counts):
            raise SettingError(
                f'metainfo.keypoint_info has {len(names)} points and the classes of '
                f'the file {counts}: take it out, or correct one of the two'
            )
        lists, counts = [names], counts if any(counts) else [len(names)] * len(counts)
        _require_known(names, [e['swap'] for e in entries if e.get('swap')], 'swap')
        if flip is None and any(entry.get('swap') for entry in entries):
            flip = [names.index(e.get('swap') or e['name']) for e in entries]
    if not any(counts):
        raise SettingError(
            f'no class of {list(classes)} has points in the file: give one that has, '
            'or set the type of the data set to RFDETRCocoDataset'
        )
    names = max(lists, key=len)
    flip = flip if flip is not None else stated_swap(own)
    if flip is None:
        flip = agreed_swap(lists)
    elif not is_swap(flip, len(names)):
        raise SettingError(
            f'flip_indices={[*flip]} of the metainfo, or of a category of the file, '
            f'must have each number from 0 to {len(names) - 1} once, the point that '
            'each becomes in a mirror: set metainfo=dict(flip_indices=[...])'
        )
    info = info or {i: dict(name=name, id=i) for i, name in enumerate(names)}
    links = metainfo.get('skeleton_info') or {}
    ends = [end for line in links.values() for end in line['link']]
    _require_known([entry['name'] for entry in info.values()], ends, 'link')
    if not links:
        # Of the class that has these points, if there are several.
        whole = [x for x in own if points.get(str(x.get('name'))) == [*names]]
        lines = stated_lines(whole or own, len(names))
        links = {
            i: dict(link=(names[a], names[b]), id=i) for i, (a, b) in enumerate(lines)
        }
    found = dict(num_keypoints=counts, keypoint_info=info, skeleton_info=links)
    return dict(found, flip_indices=flip)


def _require_form(metainfo: Mapping) -> None:
    """Refuse what MMPose's metainfo would not have.

    Raises:
        SettingError: with the key.
    """
    points = metainfo.get('keypoint_info') or {}
    lines = metainfo.get('skeleton_info') or {}
    named = isinstance(points, Mapping) and all(
        isinstance(part, Mapping) and isinstance(part.get('name'), str)
        for part in points.values()
    )
    linked = isinstance(lines, Mapping) and all(
        isinstance(line, Mapping) and len(line.get('link') or ()) == 2
        for line in lines.values()
    )
    flip = metainfo.get('flip_indices')
    for key, is_right, example in (
        ('keypoint_info', named, "{0: dict(name='nose', id=0), ...}"),
        ('skeleton_info', linked, "{0: dict(link=('nose', 'left_eye'), id=0), ...}"),
        (
            'flip_indices',
            flip is None or isinstance(flip, list | tuple),
            '[0, 2, 1, ...]',
        ),
    ):
        if not is_right:
            raise SettingError(
                f'metainfo.{key}={metainfo[key]!r} must be as in MMPose, {example}'
            )


def _require_known(names: Sequence[str], used: Sequence[str], key: str) -> None:
    """Refuse names of points that there are not."""
    if unknown := [name for name in used if name not in names]:
        raise SettingError(
            f'{key}={unknown[0]!r} in the metainfo is no point of {list(names)}: '
            'correct it'
        )


def clean_points(
    values: Any, count: int, most: int, size: tuple[int, int]
) -> tuple[np.ndarray, list[PointFinding]]:
    """Points of an object as they are learned, and what was wrong with them.

    Args:
        values: what the file holds, x, y and visibility of each.
        count: points of its class.
        most: points of the class that has the most.
        size: (height, width) of the image.

    Returns:
        (most, 3) float32, zeros where there is no labelled point inside the image.
    """
    points, found = np.zeros((most, 3), np.float32), []
    if not values:
        return points, found
    try:
        flat = [float(value) for value in values]
        if not all(map(math.isfinite, flat)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        return points, [PointFinding.BROKEN]
    if len(flat) != 3 * count:
        found.append(PointFinding.LENGTH)
    taken = min(len(flat) // 3, most)  # as officially; the head passes over more
    points[:taken] = np.reshape(flat[: 3 * taken], (taken, 3))
    visible = points[:, 2]
    odd = ~np.isin(visible, (0, 1, 2))
    if odd.any():
        found.append(PointFinding.VISIBILITY)
        visible[odd] = np.where(visible[odd] > 0, 2, 0)
    inside = (points[:, :2] >= 0).all(1) & (points[:, :2] < size[::-1]).all(1)
    if (~inside & (visible > 0)).any():
        found.append(PointFinding.OUTSIDE)
    points[~inside | (visible == 0)] = 0
    return points, found
