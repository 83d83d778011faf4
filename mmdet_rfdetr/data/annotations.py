"""COCO annotation files as they really are, made usable."""

import json
import math
import reprlib
from collections.abc import Hashable, Sequence
from typing import Any

from mmengine import fileio

from .findings import BadDataError, Finding, Findings
from .masks import is_polygon


def read_annotations(
    path: str, backend_args: dict | None = None, *, needs_objects: bool = True
) -> dict:
    """Read a COCO annotation file.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.
        needs_objects: False takes a file without ``annotations``, as COCO's test sets
            have none.

    Returns:
        The document, with lists ``images``, ``annotations`` and ``categories``, of
        which the categories have one ``id`` and one ``name`` each.

    Raises:
        FileNotFoundError: if there is no file.
        BadDataError: if it is not JSON, cut off, or not in COCO format.
    """
    try:
        text = fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'Annotation file {path} does not exist: set data_root and ann_file.'
        ) from error
    except (IsADirectoryError, PermissionError) as error:
        raise BadDataError(
            f'Annotation file {path} cannot be read ({error.strerror}): set data_root '
            'and ann_file.'
        ) from error
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadDataError(
            f'{path} is cut off or not JSON ({error}): export or copy it again.'
        ) from error
    if not isinstance(document, dict):
        document = {}
    if not needs_objects:
        document.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document.get(key), list):
            without = (
                ', or for a test set without objects set format_only=True in the '
                'evaluator'
            )
            raise BadDataError(
                f'{path} has no list {key!r}, so it is not in COCO format: convert it'
                f'{without if key == "annotations" else ""}.'
            )
        # What is no JSON object lacks all its keys.
        entries = document[key]
        document[key] = [entry if isinstance(entry, dict) else {} for entry in entries]
    _check_categories(document['categories'], path)
    return document


def _check_categories(categories: Sequence[dict], path: str) -> None:
    """Refuse categories that cannot be told apart.

    Raises:
        BadDataError: names the file and the first entry.
    """
    known: set[tuple[str, Hashable]] = set()
    for position, category in enumerate(categories):
        marks = dict(id=as_id(category.get('id')), name=category.get('name')).items()
        if known & marks or None in dict(marks).values():
            raise BadDataError(
                f'The categories of {path} need one id and one name each, and entry '
                f'{position} has none, or one used before: {reprlib.repr(category)}. '
                'Correct the file.'
            )
        known |= marks


def match_categories(
    categories: Sequence[dict], classes: Sequence[str], path: str
) -> dict[Hashable, int]:
    """Find the label of every category id.

    CocoMetric takes labels in the order of the file, mmdet's visualizer in the order
    of ``classes``; both are right only if the orders agree.

    Args:
        categories: ``categories`` of a COCO file; more than ``classes`` may be there.
        classes: the class names of the data set's metainfo.
        path: the file, for the error.

    Returns:
        Category id to label.

    Raises:
        BadDataError: if a class is missing in the file, or the order is another one.
    """
    names = [category['name'] for category in categories]
    chosen = [
        (as_id(category['id']), category['name'])
        for category in categories
        if category['name'] in classes
    ]
    if [name for _, name in chosen] != list(classes):
        missing = [name for name in classes if name not in names]
        what = f'lack {_shorten(missing)}' if missing else 'come in another order'
        raise BadDataError(
            f'The categories of {path} {what}. File: {_shorten(names)}; '
            f'metainfo.classes: {_shorten(classes)}. Set metainfo=dict(classes=...) in '
            'all data loaders to names of the file, in the order of the file, and '
            'model.bbox_head.num_classes to their number.'
        )
    return {key: label for label, (key, _) in enumerate(chosen)}


def _shorten(names: Sequence[str], limit: int = 12) -> str:
    """Class names for an error message."""
    names = list(names)
    if len(names) <= limit:
        return str(tuple(names))
    return f'{tuple(names[:limit])} and {len(names) - limit} more'


def clean_annotations(document: dict, findings: Findings) -> dict:
    """Leave out what cannot be used, and complete the rest.

    Boxes are checked for being numbers only; what lies outside its image is a
    matter of how it is used.

    Args:
        document: what :func:`read_annotations` returned; stays as it is.
        findings: what is found is added here.

    Returns:
        A document of which images have ``id`` and ``file_name``, objects a listed
        ``image_id`` and ``category_id``, finite ``bbox`` and ``area``, ``iscrowd`` 0
        or 1 and ``segmentation``, maybe empty.
    """
    images = _clean_images(document['images'], findings)
    known_images = {image['id'] for image in images}
    categories = [
        dict(category, id=as_id(category['id'])) for category in document['categories']
    ]
    known_categories = {category['id'] for category in categories}
    annotations = []
    used: set[Hashable] = set()
    for raw in document['annotations']:
        box = _numbers(raw.get('bbox'), raw, findings)
        image_id = as_id(raw.get('image_id'))
        category_id = as_id(raw.get('category_id'))
        if box is None or len(box) != 4:
            findings.add(Finding.OBJECT_BROKEN, raw)
            continue
        if image_id not in known_images:
            findings.add(Finding.UNKNOWN_IMAGE, raw)
            continue
        if category_id not in known_categories:
            findings.add(Finding.UNKNOWN_CATEGORY, raw)
            continue
        own_id = as_id(raw.get('id'))
        if own_id in used:
            findings.add(Finding.OBJECT_TWICE, raw)
        elif own_id is not None:
            used.add(own_id)
        area = _number(raw.get('area'))
        annotations.append(
            dict(
                raw,
                image_id=image_id,
                category_id=category_id,
                bbox=box,
                area=box[2] * box[3] if area is None else area,
                iscrowd=int(bool(_number(raw.get('iscrowd')))),
                segmentation=_clean_mask(raw, findings),
            )
        )
    return dict(images=images, annotations=annotations, categories=categories)


def as_id(value: Any) -> Hashable:
    """An id as it compares: whole numbers as int also if written as text."""
    if type(value) is int:  # the common case first
        return value
    if isinstance(value, str):
        return int(value) if value.isdecimal() else value
    number = _number(value)
    if number is None:
        return None
    return int(number) if number == int(number) else number


def _clean_images(entries: Sequence[dict], findings: Findings) -> list[dict]:
    """Images with an id, a file name, and a size or None."""
    images: dict[Hashable, dict] = {}
    ambiguous = set()
    for position, raw in enumerate(entries):
        key, name = as_id(raw.get('id')), raw.get('file_name')
        if key is None or not isinstance(name, str):
            findings.add(Finding.IMAGE_BROKEN, f'entry {position}')
            continue
        size = [_number(raw.get(side)) for side in ('height', 'width')]
        valid = all(side is not None and side >= 1 for side in size)
        height, width = map(int, size) if valid else (None, None)
        image = dict(raw, id=key, height=height, width=width)
        if key not in images:
            images[key] = image
        elif images[key]['file_name'] == name:
            findings.add(Finding.IMAGE_REPEATED, f'image {key} ({name})')
        else:
            findings.add(
                Finding.IMAGE_TWICE,
                f'image {key} ({images[key]["file_name"]} and {name})',
            )
            # Their objects cannot be told apart.
            ambiguous.add(key)
    return [image for key, image in images.items() if key not in ambiguous]


def _clean_mask(raw: dict, findings: Findings) -> list | dict:
    """Polygons of finite numbers, or a run-length code; empty if there is neither."""
    mask = raw.get('segmentation')
    if isinstance(mask, dict):
        return mask  # looked at where the size of the image is known
    polygons = []
    for polygon in mask if isinstance(mask, list) else []:
        numbers = _numbers(polygon, raw, findings)
        if numbers is not None and is_polygon(numbers):
            polygons.append(numbers)
        else:
            findings.add(Finding.POLYGON_BROKEN, raw)
    return polygons


def _number(value: Any) -> float | None:
    """A finite number, also if written as text; None if it is none."""
    if isinstance(value, float):  # the common case first
        return value if math.isfinite(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _numbers(values: Any, raw: dict, findings: Findings) -> list[float] | None:
    """A list of finite numbers, of object ``raw``; None if it is none."""
    if not isinstance(values, list):
        return None
    try:
        if math.isfinite(sum(values)):  # the common case first
            return values
    except (TypeError, OverflowError):
        pass
    numbers = [_number(value) for value in values]
    if None in numbers:
        return None
    if any(isinstance(value, str) for value in values):
        findings.add(Finding.TEXT_NUMBER, raw)
    return numbers
