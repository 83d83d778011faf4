"""COCO annotation files, and their labels by name."""

import json
import logging
from collections.abc import Callable, Hashable, Sequence

from mmengine import fileio
from mmengine.logging import print_log

from ..class_names import match_classes, read_class_list, show_classes
from ..errors import BadDataError, SettingError

MASK_CHECKS: list[Callable[[object, int | None, int | None], str | None]] = []
"""What looks at masks before they are drawn; called as :func:`mask_problem` is."""

PLAIN_CHECKS: list[Callable[[dict, dict, dict, set], bool]] = []
"""What knows objects of which nothing is to be said; called with an object, images and
ids of categories by their ids, and the ids of the plain objects before."""

OTHER_FORMATS: list[Callable[[str, dict | None], dict | None]] = []
"""What reads files of other formats than COCO's, called with a path and backend_args;
None for a path that is of none of its."""


def mask_problem(
    segmentation: object, height: int | None, width: int | None
) -> str | None:
    """Say what is wrong with the mask of an object, where something draws masks.

    Args:
        segmentation: what COCO's key of this name holds.
        height: of the image, None if it is not known.
        width: likewise.

    Returns:
        What the first of ``MASK_CHECKS`` says, None if all are content.
    """
    problems = (check(segmentation, height, width) for check in MASK_CHECKS)
    return next(filter(None, problems), None)


def load_document(path: str, backend_args: dict | None = None) -> dict:
    """Load what an annotation file holds, in COCO's form from any of ``OTHER_FORMATS``.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.

    Raises:
        ValueError: if it is of no format that is known; of JSON, that of the parser.
    """
    others = filter(None, (read(path, backend_args) for read in OTHER_FORMATS))
    return next(others, None) or json.loads(fileio.get(path, backend_args))


def read_annotations(path: str, backend_args: dict | None = None) -> dict:
    """Read a sound COCO annotation file.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.

    Returns:
        The document; ``annotations`` is empty where it is missing, as in COCO's files
        of test images.
    """
    return dict(dict(annotations=[]), **load_document(path, backend_args))


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
        categories: ``categories`` of a file; more than ``classes`` may be there.
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
