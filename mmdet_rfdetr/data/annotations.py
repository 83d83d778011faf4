"""Reading COCO annotation files, and their labels by name."""

import json
import logging
import reprlib
from collections.abc import Hashable, Sequence

from mmengine import fileio
from mmengine.logging import print_log
from mmengine.utils import is_filepath

from ..class_names import match_classes, read_class_list, show_classes
from ..errors import BadDataError, SettingError


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
        document = json.loads(fileio.get(path, backend_args=backend_args))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'Annotation file {path} does not exist: set data_root and ann_file.'
        ) from error
    # Of JSON that nests too deeply, or has numbers of thousands of digits, too.
    except (OSError, ValueError, RecursionError) as error:
        raise BadDataError(
            f'{path} is cut off or not JSON ({error}): export or copy it again, or set '
            'data_root and ann_file.'
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


def match_categories(
    categories: Sequence[dict],
    classes: Sequence[str],
    path: str,
    *,
    needs_most: bool = False,
) -> dict[Hashable, int]:
    """Find the label of every category id: by name, in the order of ``classes``.

    The order of the categories in a file means nothing. A class that the file lacks is
    one without objects, and logged.

    Args:
        categories: ``categories`` of a file, see :func:`clean_annotations`; more than
            ``classes`` may be there.
        classes: the class names of the data set's metainfo.
        path: the file, for messages.
        needs_most: whether a file that lacks most of the classes is an error.

    Returns:
        Category id to label, in the order of the labels.

    Raises:
        SettingError: if ``classes`` is no list of names.
        BadDataError: if no class is in the file, or one is spelt in another way.
    """
    classes = read_class_list(classes)
    if not classes:
        raise SettingError('metainfo.classes=() is empty: set it to names of the file.')
    names = [str(category['name']) for category in categories]
    match = match_classes(classes, names)
    labels = {
        categories[position]['id']: label
        for label, position in enumerate(match.positions)
        if position is not None
    }
    if not match.missing and labels:
        return labels
    lack = f'The categories of {path} lack {show_classes(match.missing)}'
    hint = match.suggestion()
    too_few = not labels or (needs_most and len(match.missing) > len(labels))
    if match.misspelt or too_few:
        raise BadDataError(
            f'{lack}. {hint}{" " * bool(hint)}File: {show_classes(names)}; '
            f'metainfo.classes: {show_classes(classes)}. Set metainfo=dict(classes='
            '...) to names of the file, the same in all data loaders, and '
            'model.bbox_head.num_classes to their number.'
        )
    print_log(
        f'{lack}, which count as classes without objects. {hint}'.rstrip(),
        logger='current',
        level=logging.WARNING,
    )
    return labels
