"""Whether the images that are evaluated are those that an annotation file describes."""

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from mmengine.logging import print_log

from ..errors import BadDataError
from .annotations import as_id, fit

_REMEDY = (
    'Give each data loader and its evaluator the same ann_file; several data sets with '
    "files of their own need an evaluator of type='MultiDatasetsEvaluator', with a "
    'metric for each.'
)
_ADD_PATHS = "add 'img_path' to meta_keys of PackDetInputs in the pipeline"


def distinct(results: Sequence[tuple[dict, dict]]) -> list[tuple[dict, dict]]:
    """Take an image once that was evaluated several times, from the same file.

    Args:
        results: (target, prediction) of each evaluation; targets as in
            :func:`find_images`.
    """
    seen = {}
    for number, (target, prediction) in enumerate(results):
        path = target.get('img_path')
        key = as_id(target['img_id']), number if path is None else path
        seen.setdefault(key, (target, prediction))
    return list(seen.values())


def find_images(
    targets: Sequence[dict],
    listed: Mapping[Hashable, dict],
    boxes: Mapping[Hashable, Sequence[dict]],
    file: str,
    *,
    source: str | None = None,
    exact: bool = False,
) -> list[Hashable]:
    """Find the images that were evaluated among those that a file describes.

    An id alone proves nothing: most files count their images from 1. Names of files
    are compared without folders and endings, as these may have changed. Sizes may be
    stated wrongly, and then count where objects do not fit, in most images. Without
    names, that is a warning.

    Args:
        targets: ``img_id``, ``height``, ``width`` and, where it is known, ``img_path``
            of each image, as it was evaluated.
        listed: the images of the file by id, each with ``file_name``, ``height`` and
            ``width``.
        boxes: objects by image id, each with ``bbox``.
        file: the annotation file.
        source: the annotation file of the data loader, if it is known.
        exact: whether any other size than stated is that of another image.

    Returns:
        Their ids in the file.

    Raises:
        BadDataError: if there are others than the file describes, or one is there
            twice; names both files.
    """
    ids = {as_id(key): key for key in listed}
    origin = f' of {source}' if source else ''
    unknown = [target for target in targets if as_id(target['img_id']) not in ids]
    if unknown:
        raise BadDataError(
            f'{len(unknown)} images{origin} were evaluated that the annotations do not '
            f'list, for example {unknown[0]["img_id"]!r} ({_describe(unknown[0])}); '
            f'the ann_file of the evaluator is {file}. {_REMEDY}'
        )
    pairs = [(target, listed[ids[as_id(target['img_id'])]]) for target in targets]
    for first, second in _repeated(pairs):
        raise BadDataError(
            f'Two images were evaluated with the id {first["img_id"]!r}{origin}, '
            f'{_describe(first)} and {_describe(second)}, and {file} has one: '
            f'{_describe(listed[ids[as_id(first["img_id"])]])}. {_REMEDY}'
        )
    others = [pair for pair in pairs if not _have_same_name(*pair)]
    if not others:
        others = [
            (target, image)
            for target, image in pairs
            if _differ_in_size(target, image, boxes.get(image['id'], ()), exact)
        ]
        # Of another file, as good as all differ; a few are stated wrongly.
        others = others if 2 * len(others) > len(pairs) else []
    are_named = all(target.get('img_path') for target in targets)
    message = ''
    if others:
        target, image = others[0]
        message = (
            f'{len(others)} of {len(pairs)} images{origin} that were evaluated are not '
            f'those of {file}: its image {image["id"]!r} is {_describe(image)}, and '
            f'{_describe(target)} was evaluated. {_REMEDY}'
        )
        if are_named:
            raise BadDataError(message)
    if not are_named:
        print_log(
            f'Whether the images that are evaluated are those of {file} is not known, '
            f'since their names are not: {_ADD_PATHS}. {message}'.rstrip(),
            logger='current',
            level=logging.WARNING,
        )
    return [image['id'] for _, image in pairs]


def number_images(targets: Sequence[dict]) -> list[Hashable]:
    """Give images ids that differ, where several data sets are joined.

    Args:
        targets: as in :func:`find_images`, each once.

    Returns:
        Their own ids if these differ, else numbers from 1.

    Raises:
        BadDataError: if images with one id cannot be told apart.
    """
    own = [target['img_id'] for target in targets]
    if len(set(map(as_id, own))) == len(own):
        return own
    if any(target.get('img_path') is None for target in targets):
        raise BadDataError(
            f'Several images were evaluated with the same id: {_ADD_PATHS}, by which '
            'they are told apart, or give images ids of their own.'
        )
    return list(range(1, len(own) + 1))


def _repeated(pairs: Sequence[tuple[dict, dict]]) -> Iterator[tuple[dict, dict]]:
    """Two targets each of one image."""
    seen: dict[Hashable, dict] = {}
    for target, image in pairs:
        if image['id'] in seen:
            yield seen[image['id']], target
        seen[image['id']] = target


def _have_same_name(target: dict, image: dict) -> bool:
    """Whether two names can be those of one file; a name that is unknown can."""
    names = target.get('img_path'), image.get('file_name')
    return not all(names) or len(set(map(_stem, names))) == 1


def _stem(path: str) -> str:
    """The name of a file as every system and annotation tool writes it."""
    return PurePosixPath(unquote(str(path)).replace('\\', '/')).stem.casefold()


def _differ_in_size(
    target: dict, image: dict, boxes: Sequence[dict], exact: bool
) -> bool:
    """Whether an image has another size than stated, at which objects do not fit."""
    size, stated = (
        (entry.get('height'), entry.get('width')) for entry in (target, image)
    )
    # Turned photographs are stated either way.
    if None in stated or size in (stated, stated[::-1]):
        return False
    return exact or not fit(boxes, size)


def _describe(entry: dict) -> str:
    name = entry.get('img_path') or entry.get('file_name') or 'an image'
    return f'{name} of {entry.get("height")} x {entry.get("width")} pixels'
