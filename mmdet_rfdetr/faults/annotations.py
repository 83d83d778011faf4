"""COCO annotation files as they really are, made usable."""

import math
import re
import reprlib
from collections.abc import Hashable, Sequence
from typing import Any

from mmengine.utils import is_filepath

from ..data.annotations import PLAIN_CHECKS, load_document, mask_problem
from ..errors import BadDataError, ExplainedError, SettingError
from .findings import Finding, Findings

TOLERANCE = 1.0  # pixels; annotation tools round
_WHOLE_NUMBER = re.compile('-?(0|[1-9][0-9]{0,17})')


def read_annotations(
    path: str, backend_args: dict | None = None, *, needs_objects: bool = True
) -> dict:
    """Read a COCO annotation file, whatever is in it.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.
        needs_objects: False takes a file without ``annotations``, as COCO's test sets
            have none.

    Returns:
        The document, with lists ``images``, ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError: if there is no file.
        BadDataError: if it is not JSON, cut off, or not in COCO format.
        SettingError: if it is no path.
    """
    if not is_filepath(path):
        raise SettingError(
            f'ann_file={reprlib.repr(path)} must be the path of one file. Join several '
            'data sets with ConcatDataset; their evaluator is MultiDatasetsEvaluator '
            'with a metric for each, or a metric without ann_file for all.'
        )
    try:
        document = load_document(path, backend_args)
    except ExplainedError:  # of another format
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'Annotation file {path} does not exist: set data_root and ann_file.'
        ) from error
    # JSON can nest too deeply, and a storage raises anything.
    except Exception as error:
        raise BadDataError(
            f'{path} is cut off or not JSON, or cannot be read ({error!r}): export or '
            'copy it again, or set data_root, ann_file and backend_args.'
        ) from error
    if not isinstance(document, dict):
        document = {}
    if not needs_objects:
        document.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(document.get(key), list):
            raise BadDataError(
                f'{path} has no list {key!r}, so it is not in COCO format: convert it. '
                '(A test set without annotations needs format_only=True in the '
                'evaluator.)'
            )
        # What is no JSON object lacks all its keys.
        entries = document[key]
        document[key] = [entry if isinstance(entry, dict) else {} for entry in entries]
    return document


def fit(objects: Sequence[dict], size: tuple[int, int]) -> bool:
    """Whether all boxes lie within (height, width), give or take a pixel."""
    return all(
        x + width <= size[1] + TOLERANCE and y + height <= size[0] + TOLERANCE
        for x, y, width, height in (entry['bbox'] for entry in objects)
    )


def clean_annotations(document: dict, findings: Findings) -> dict:
    """Leave out what cannot be used, and complete the rest.

    Boxes are checked for being numbers only; what lies outside its image is a
    matter of how it is used. Ids stay as images and categories have them, in result
    files too; objects may write the same number in another way.

    Args:
        document: what :func:`read_annotations` returned; stays as it is.
        findings: what is found is added here.

    Returns:
        A document of which images have ``id`` and ``file_name``, categories one ``id``
        and one ``name`` each, objects a listed ``image_id`` and ``category_id``, finite
        ``bbox``. Where they are not left out, ``area`` is finite, ``iscrowd`` and
        ``ignore`` are 0 or 1, and ``segmentation`` is one, maybe empty.

    Raises:
        BadDataError: if categories cannot be told apart.
    """
    images = _clean_images(document['images'], findings)
    known_images = {as_id(image['id']): image for image in images}
    categories = clean_categories(document, findings)
    known_categories = {as_id(entry['id']): entry['id'] for entry in categories}
    annotations = []
    used: set[Hashable] = set()
    in_corner, has_fractions = [], False
    for raw in document['annotations']:
        if PLAIN_CHECKS and PLAIN_CHECKS[0](raw, known_images, known_categories, used):
            annotations.append(raw)
            continue
        box = _numbers(raw.get('bbox'), raw, findings)
        image = known_images.get(as_id(raw.get('image_id')))
        category_id = known_categories.get(as_id(raw.get('category_id')))
        if box is None or len(box) != 4:
            findings.add(Finding.OBJECT_BROKEN, raw)
            continue
        if image is None:
            findings.add(Finding.UNKNOWN_IMAGE, raw)
            continue
        if category_id is None:
            findings.add(Finding.UNKNOWN_CATEGORY, raw)
            continue
        own_id = as_id(raw.get('id'))
        if own_id in used:
            findings.add(Finding.OBJECT_TWICE, raw)
        elif own_id is not None:
            used.add(own_id)
        box = list(map(float, box))  # a whole number can be of any size
        area = finite_number(raw.get('area'))
        mask = _clean_mask(raw, image, findings)
        shapes = [box] * (min(box[2:]) > 0) + (mask if isinstance(mask, list) else [])
        if corner := [shape for shape in shapes if max(shape) <= 1]:
            in_corner.append(raw)
            has_fractions |= any(value % 1 for shape in corner for value in shape)
        annotations.append(
            dict(
                raw,
                image_id=image['id'],
                category_id=category_id,
                bbox=box,
                area=box[2] * box[3] if area is None else area,
                iscrowd=_mark(raw.get('iscrowd')),
                ignore=_mark(raw.get('ignore')),
                segmentation=mask,
            )
        )
    if has_fractions or len(in_corner) == len(annotations):
        for raw in in_corner:
            findings.add(Finding.FRACTIONS, raw)
    return dict(images=images, annotations=annotations, categories=categories)


def clean_categories(document: dict, findings: Findings) -> list[dict]:
    """Leave out grouping categories that share the name of a class.

    Exports of annotation platforms have a root, named as the project, that has no
    objects and is the ``supercategory`` of all others. A project may be named as one
    of its classes.

    Args:
        document: what :func:`read_annotations` returned.
        findings: what is found is added here.

    Returns:
        The other categories, with one ``id`` and one ``name`` each.

    Raises:
        BadDataError: names the file and the first entry that has none, or one used
            before.
    """
    categories = document['categories']
    groups = _grouping(document)
    cleaned: list[dict] = []
    known: set[tuple[str, Hashable]] = set()
    for position, category in enumerate(categories):
        key, name = as_id(category.get('id')), category.get('name')
        name = name if _is_name(name) else None
        if position in groups:
            findings.add(Finding.GROUPING_CATEGORY, f'category {key} ({name})')
            continue
        marks = {('id', key), ('name', None if name is None else str(name))}
        if known & marks or None in (key, name):
            raise BadDataError(
                f'The categories of {findings.source} need one id and one name each, '
                f'and entry {position} has none, or one used before: '
                f'{reprlib.repr(category)}. Correct the file.'
            )
        known |= marks
        cleaned.append(category)
    return cleaned


def _grouping(document: dict) -> set[int]:
    """Positions of categories without objects that group others and share a name.

    One of each name stays: without objects, as in a test set, the innermost.
    """
    categories = document['categories']
    parents = [str(entry.get('supercategory')) for entry in categories]
    shared: dict[str, list[int]] = {}
    for position, entry in enumerate(categories):
        if _is_name(entry.get('name')) and str(entry['name']) in parents:
            shared.setdefault(str(entry['name']), []).append(position)
    shared = {name: places for name, places in shared.items() if len(places) > 1}
    if not shared:
        return set()
    used = {as_id(raw.get('category_id')) for raw in document['annotations']}
    names = {str(entry.get('name')) for entry in categories}
    groups = set()
    for places in shared.values():
        empty = [n for n in places if as_id(categories[n].get('id')) not in used]
        if len(empty) == len(places):
            empty.remove(max(empty, key=lambda n: (parents[n] in names, n)))
        groups.update(empty)
    return groups


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int | float)


def as_id(value: Any) -> Hashable:
    """An id as it compares: a whole number is the same number if written as text.

    ``"1"`` is 1, and ``"01"`` is another id, which stays a text.
    """
    if type(value) is int:  # the common case first
        return value
    if isinstance(value, str):
        return int(value) if _WHOLE_NUMBER.fullmatch(value) else value
    number = finite_number(value)
    if number is None:
        return None
    return int(number) if number == int(number) else number


def finite_number(value: Any) -> float | None:
    """A finite number, also if written as text; None if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _clean_images(entries: Sequence[dict], findings: Findings) -> list[dict]:
    """Images with an id, a file name, and a size or None."""
    images: dict[Hashable, dict] = {}
    ambiguous = set()
    for position, raw in enumerate(entries):
        key, name = as_id(raw.get('id')), raw.get('file_name')
        if key is None or not isinstance(name, str):
            findings.add(Finding.IMAGE_BROKEN, f'entry {position}: {raw}')
            continue
        size = [finite_number(raw.get(side)) for side in ('height', 'width')]
        valid = all(side is not None and side >= 1 for side in size)
        height, width = map(int, size) if valid else (None, None)
        image = dict(raw, height=height, width=width)
        if key not in images:
            images[key] = image
        elif images[key]['file_name'] == name:
            findings.add(Finding.IMAGE_REPEATED, f'image {key} ({name})')
        else:
            both = f'{images[key]["file_name"]} and {name}'
            findings.add(Finding.IMAGE_TWICE, f'image {key} ({both})')
            # Their objects cannot be told apart.
            ambiguous.add(key)
    return [image for key, image in images.items() if key not in ambiguous]


def _clean_mask(raw: dict, image: dict, findings: Findings) -> list | dict:
    """Polygons of finite numbers, or a run-length code; empty if there is neither."""
    mask = raw.get('segmentation')
    if isinstance(mask, dict):  # looked at where the real size of the image is known
        size = mask.get('size')
        sides = [*map(finite_number, size)] if isinstance(size, list) else [None]
        if None not in sides:
            size = [int(side) for side in sides]
        counts = mask.get('counts')
        if isinstance(counts, list) and any(type(run) is not int for run in counts):
            runs = _numbers(counts, raw, findings) or ()
            if runs and all(float(run).is_integer() for run in runs):
                counts = [int(run) for run in runs]
        return dict(size=size, counts=counts)
    if not isinstance(mask, list | None):
        findings.add(Finding.MASK_BROKEN, raw)
        return []
    polygons = []
    for polygon in mask or ():
        numbers = _numbers(polygon, raw, findings)
        if numbers is None or len(numbers) < 6 or len(numbers) % 2:
            findings.add(Finding.POLYGON_BROKEN, raw)
        elif mask_problem([numbers], image['height'], image['width']):
            findings.add(Finding.POLYGON_FAR, raw)
        else:
            polygons.append(numbers)
    return polygons


def _mark(value: Any) -> int:
    """1 for a number other than 0, also as text, and for true."""
    return int(bool(finite_number(value)) or value in ('true', 'True'))


def _numbers(values: Any, raw: dict, findings: Findings) -> list[float] | None:
    """A list of finite numbers, of object ``raw``; None if it is none."""
    if not isinstance(values, list):
        return None
    try:
        if math.isfinite(math.fsum(values)):  # the common case first
            return values
    except (TypeError, ValueError, OverflowError):
        pass
    numbers = [finite_number(value) for value in values]
    if None in numbers:
        return None
    if any(isinstance(value, str) for value in values):
        findings.add(Finding.TEXT_NUMBER, raw)
    return numbers
