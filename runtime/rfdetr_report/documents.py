"""What was to be found and what was, as pycocotools' indices."""

import contextlib
import io
import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
from pycocotools.coco import COCO
from rfdetr_runtime.errors import SourceError


def read_json(path: str, kind: str) -> Any:
    """Read a file.

    Args:
        path: of the file.
        kind: what it is, for the message.

    Raises:
        SourceError: it is not there, or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except OSError as error:
        raise SourceError(f'{kind} {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f'{kind} {path} is no JSON: {error}') from error


def index_truth(document: dict) -> COCO:
    """Index a COCO document by ids that pycocotools can count with.

    Args:
        document: ``images``, ``annotations`` and ``categories``; it stays as it is.

    Returns:
        The index. Images are counted from 0 in the order of their ids, categories in
        that of the document, and objects from 1. Images and categories keep what else
        they hold, and their id as ``key``.

    Raises:
        SourceError: if the document is none.
    """
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ('images', 'categories')
    ):
        raise SourceError(
            'the annotations are no COCO document with images and categories'
        )
    with _naming('an image or a category of the annotations'):
        images = sorted(document['images'], key=_order)
        places = {image['id']: place for place, image in enumerate(images)}
        labels = {each['id']: i for i, each in enumerate(document['categories'])}
    annotations = []
    for number, each in enumerate(document.get('annotations') or [], start=1):
        with _naming(f'object {number} of the annotations'):
            is_crowd = int(each.get('iscrowd') or each.get('ignore') or 0)
            annotation = dict(id=number, iscrowd=is_crowd)
            annotation['image_id'] = _place(each, 'image_id', places)
            annotation['category_id'] = _place(each, 'category_id', labels)
            x, y, width, height = map(float, each['bbox'])
            annotation['bbox'] = [x, y, width, height]
            area = each.get('area')
            annotation['area'] = width * height if area is None else float(area)
        if each.get('segmentation'):
            annotation['segmentation'] = each['segmentation']
        annotations.append(annotation)
    return _index(
        [dict(image, id=i, key=image['id']) for i, image in enumerate(images)],
        [
            dict(id=i, key=each['id'], name=str(each.get('name', each['id'])))
            for i, each in enumerate(document['categories'])
        ],
        annotations,
    )


def _order(image: dict) -> tuple[bool, Hashable]:
    """Numbers before text: who has the same score counts in this order."""
    return isinstance(image['id'], str), image['id']


def index_found(truth: COCO, results: Sequence[dict], kind: str) -> COCO:
    """Index detections.

    Args:
        truth: of :func:`index_truth`.
        results: COCO results: ``image_id``, ``category_id``, ``score``, ``bbox`` and,
            for masks, ``segmentation`` of each.
        kind: ``'bbox'`` or ``'segm'``.

    Raises:
        SourceError: if they are none, or of other images or categories.
    """
    images = {image['key']: place for place, image in truth.imgs.items()}
    labels = {each['key']: label for label, each in truth.cats.items()}
    annotations = []
    for number, each in enumerate(results, start=1):
        with _naming(f'detection {number}'):
            entry = dict(id=number, iscrowd=0, score=float(each['score']))
            entry['image_id'] = _place(each, 'image_id', images)
            entry['category_id'] = _place(each, 'category_id', labels)
            if kind == 'segm':
                image = truth.imgs[entry['image_id']]
                code = as_code(each['segmentation'], image['height'], image['width'])
                entry.update(segmentation=code, area=float(rle.area(code)))
                entry['bbox'] = rle.toBbox(code).tolist()
            else:
                x, y, width, height = map(float, each['bbox'])
                entry.update(bbox=[x, y, width, height], area=width * height)
        if not np.isfinite([entry['score'], *entry['bbox']]).all():
            raise SourceError(f'detection {number} is not finite: no number says more')
        annotations.append(entry)
    return _index(truth.dataset['images'], truth.dataset['categories'], annotations)


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which entry of a file lacks something, or has something else there."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        lacks = f'has no {error}' if isinstance(error, KeyError) else f'is odd: {error}'
        raise SourceError(
            f'{what} {lacks}; COCO wants ids of an image and of a category, a bbox of '
            'four numbers or a segmentation, and of detections a score'
        ) from error


def _place(entry: dict, key: str, places: dict[Hashable, int]) -> int:
    """Where the image or the category of an entry stands."""
    if entry[key] not in places:
        raise ValueError(f'no {key} of the annotations is {entry[key]!r}')
    return places[entry[key]]


def as_code(mask: dict | list, height: int, width: int) -> dict:
    """Run lengths of a mask of any form that COCO has."""
    if isinstance(mask, list):
        return rle.merge(rle.frPyObjects(mask, height, width))
    if isinstance(mask['counts'], list):
        return rle.frPyObjects(mask, height, width)
    return mask


def _index(images: list, categories: list, annotations: list) -> COCO:
    index = COCO()
    index.dataset = dict(
        info={}, images=images, categories=categories, annotations=annotations
    )
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index
