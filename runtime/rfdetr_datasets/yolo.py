"""YOLO: a ``data.yaml`` of folders and names, a text of fractions for each image."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .files import (
    SPLITS,
    DatasetError,
    Watch,
    image_entry,
    is_image,
    list_files,
    read_sizes,
    read_text,
    relative,
    slashes,
)
from .points import PointScheme, read_scheme, whole_numbers

DIGITS = 6
"""Of pixels that are kept: more than any file means, fewer than rounding spoils."""


def read_settings(path: str) -> dict:
    """Read a ``data.yaml``; every value in it is a text, a list or a dict.

    Raises:
        DatasetError: if it is no YAML, or holds no names.
    """
    import yaml

    try:
        # Texts stay what they are: a class may be called "no" or "1".
        settings = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        said = ' '.join(str(error).split())
        raise DatasetError(f'{path} is no YAML: {said}.') from error
    if not isinstance(settings, dict) or 'names' not in settings:
        raise DatasetError(
            f'{path} names no classes: write names: [first, second, ...] into it.'
        )
    return settings


def read_names(settings: dict, path: str) -> dict[int, str]:
    """Names of the classes by their numbers, in the order of these.

    Raises:
        DatasetError: if they are neither a list nor a dict of numbers.
    """
    names = settings['names']
    entries = enumerate(names) if isinstance(names, list) else None
    if isinstance(names, dict) and whole_numbers([*names]) is not None:
        entries = ((int(key), name) for key, name in names.items())
    if not entries or not names:
        raise DatasetError(
            f'names of {path} must be a list or have numbers as keys, not {names!r}.'
        )
    return dict(sorted((number, str(name)) for number, name in entries))


def has_split(settings: dict, split: str) -> bool:
    """Whether a ``data.yaml`` says where a split is."""
    return any(settings.get(key) for key in SPLITS[split])


def read_yolo(path: str, split: str, watch: Watch = iter) -> dict:
    """Read one split of a YOLO data set.

    Labels lie in ``labels`` where images lie in ``images``, or else beside the image;
    an image without a file of labels has no objects. A line of five columns is a box,
    one of seven or more a polygon; where ``kpt_shape`` is set, a box and its points.
    Objects of images that cannot be opened are left out with them, as fractions of
    nothing.

    Args:
        path: the ``data.yaml``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        watch: is given the images, and gives them back.

    Returns:
        A COCO document, see the package. ``category_id`` is the number of the class,
        ``file_name`` relative to the folder of ``path``. An object of which the line is
        broken has no ``bbox``. Of poses, categories have ``keypoints``, their names,
        and ``flip_indices``, where ``flip_idx`` says them.

    Raises:
        DatasetError: if the file or the split cannot be read.
    """
    settings, folder = read_settings(path), os.path.dirname(path) or '.'
    names = read_names(settings, path)
    scheme = read_scheme(settings, path)
    paths, orphans = _images_of(settings, path, split, scheme)
    images, annotations = [], []
    sizes = read_sizes(paths)
    for number, image in enumerate(watch(paths), start=1):
        size = next(sizes)
        images.append(image_entry(number, relative(image, folder), size))
        labels = find_labels(image)
        if labels and size:
            annotations += _read_labels(labels, folder, number, size, scheme)
    for labels in orphans:
        # Its lines are objects of an image that is not listed.
        place = relative(labels, folder)
        annotations += _read_labels(labels, folder, place, (1, 1), scheme)
    points = dict(keypoints=scheme.names) if scheme else {}
    points |= dict(flip_indices=scheme.swap) if scheme and scheme.swap else {}
    categories = [
        dict(id=number, name=name, **points) for number, name in names.items()
    ]
    return dict(images=images, annotations=annotations, categories=categories)


def _images_of(
    settings: dict, path: str, split: str, scheme: PointScheme | None
) -> tuple[list[str], list[str]]:
    """Images of a split, and texts in its folders of labels that belong to none."""
    found, orphans = [], []
    for place in find_places(settings, path, split):
        if os.path.isdir(place):
            own = list_files(place, is_image)
            found += own
            orphans += _orphans(place, own, scheme)
        else:
            found += _read_list(place)
    return list(dict.fromkeys(found)), orphans


def find_places(settings: dict, path: str, split: str) -> list[str]:
    """Folders and lists of the images of a split.

    Raises:
        DatasetError: if one does not exist, or none is named.
    """
    key = next((key for key in SPLITS[split] if settings.get(key)), None)
    if key is None:
        raise DatasetError(f'{path} has no entry {split}: of images of that part.')
    entries = settings[key] if isinstance(settings[key], list) else [settings[key]]
    return [_resolve(str(entry), settings, path, key) for entry in entries]


def _resolve(entry: str, settings: dict, path: str, key: str) -> str:
    """Where an entry of a ``data.yaml`` leads: from ``path:`` in it, or its folder."""
    folder, entry = os.path.dirname(path) or '.', slashes(entry)
    root = slashes(str(settings.get('path') or ''))
    # Exports say ../train/images and mean the folder of the file.
    plain = entry
    while plain.startswith('../'):
        plain = plain[3:]
    tries = [os.path.join(folder, root, entry), os.path.join(folder, entry)]
    tries.append(os.path.join(folder, plain))
    for place in tries:
        if os.path.exists(place):
            return os.path.normpath(place)
    shown = ' and '.join(dict.fromkeys(map(os.path.normpath, tries)))
    raise DatasetError(
        f'{key}: {entry} of {path} is neither a folder nor a list of images (looked '
        f'for {shown}): correct it, or path: in that file.'
    )


def _read_list(path: str) -> Iterator[str]:
    """Paths in a list of images, from its folder unless they are whole."""
    folder = os.path.dirname(path)
    for line in read_text(path).splitlines():
        if name := line.strip():
            yield os.path.normpath(os.path.join(folder, slashes(name)))


def find_labels(image: str) -> str | None:
    """The file of labels of an image; None if there is none."""
    stem = os.path.splitext(image)[0] + '.txt'
    before, images, after = stem.rpartition(f'{os.sep}images{os.sep}')
    if images:
        parallel = f'{before}{os.sep}labels{os.sep}{after}'
    elif stem.startswith(f'images{os.sep}'):
        parallel = 'labels' + stem[6:]
    else:
        parallel = stem
    return next((path for path in (parallel, stem) if os.path.isfile(path)), None)


def _orphans(
    folder: str, images: Sequence[str], scheme: PointScheme | None
) -> list[str]:
    """Files of labels in the folder that belongs to one of images, less their own."""
    found = find_folder_of_labels(folder)
    if found is None:
        return []
    taken = {find_labels(image) for image in images}
    texts = list_files(found, lambda name: name.endswith('.txt'))
    # Beside images lie other texts as well, as lists of classes.
    return [text for text in texts if text not in taken and _is_label(text, scheme)]


def find_folder_of_labels(folder: str) -> str | None:
    """The folder of labels of a folder of images: beside it, or itself."""
    parts = Path(os.path.normpath(folder)).parts
    places = [n for n, part in enumerate(parts) if part == 'images']
    if not places:
        return folder
    own = Path(*parts[: places[-1]], 'labels', *parts[places[-1] + 1 :])
    return str(own) if own.is_dir() else None


def _is_label(path: str, scheme: PointScheme | None) -> bool:
    lines = read_text(path, errors='replace').splitlines()
    return any('bbox' in parse_line(line, (1, 1), scheme) for line in lines)


def _read_labels(
    path: str,
    folder: str,
    image_id: int | str,
    size: tuple[int, int],
    scheme: PointScheme | None,
) -> Iterator[dict]:
    """The objects of a file of labels, one for each line that is not empty."""
    origin = relative(path, folder)
    lines = read_text(path, errors='replace').splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = parse_line(line, size, scheme)
            yield dict(id=f'{origin}:{number}', image_id=image_id, **found)


def parse_line(
    line: str, size: tuple[int, int], scheme: PointScheme | None = None
) -> dict:
    """Read a line of labels.

    Args:
        line: a class and its box, center x, center y, width and height, or its polygon;
            all fractions of the image.
        size: (height, width) of the image in pixels.
        scheme: of the points, x and y or x, y and visibility, that follow a box.

    Returns:
        ``category_id`` and, if the columns are as they have to be, ``bbox``, ``area``
        and ``iscrowd``, of a polygon ``segmentation``, of a pose ``keypoints`` and
        ``num_keypoints``.
    """
    first, *columns = line.split()
    try:
        label = float(first)
        label = int(label) if label == int(label) else first
    except (ValueError, OverflowError):
        label = first
    found = dict(category_id=label)
    try:
        numbers = [*map(float, columns)]
    except ValueError:
        return found
    count = len(numbers)
    extra = len(scheme.names) * scheme.numbers if scheme else 0
    if count in (4, 4 + extra):
        box = box_in_pixels(numbers[:4], size)
        found |= dict(bbox=box, area=box[2] * box[3], iscrowd=0)
        if count > 4:
            points = points_in_pixels(numbers[4:], size, scheme.numbers)
            seen = sum(visible > 0 for visible in points[2::3])
            found |= dict(keypoints=points, num_keypoints=seen)
        return found
    if count >= 6 and count % 2 == 0 and not extra:
        polygon = polygon_in_pixels(numbers, size)
        left, top = min(polygon[::2]), min(polygon[1::2])
        box = [left, top, max(polygon[::2]) - left, max(polygon[1::2]) - top]
        box = [round(number, DIGITS) for number in box]
        area = area_of(polygon)
        return dict(found, bbox=box, area=area, iscrowd=0, segmentation=[polygon])
    return found


def box_in_pixels(fractions: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Left, top, width and height of the fractions of a box."""
    x, y, width, height = fractions
    box = ((x - width / 2) * size[1], (y - height / 2) * size[0])
    box = (*box, width * size[1], height * size[0])
    return [round(number, DIGITS) for number in box]


def polygon_in_pixels(fractions: Sequence[float], size: tuple[int, int]) -> list[float]:
    """x, y, x, y, ... of the fractions of a polygon."""
    sides = size[1], size[0]
    return [round(part * sides[n % 2], DIGITS) for n, part in enumerate(fractions)]


def points_in_pixels(
    fractions: Sequence[float], size: tuple[int, int], numbers: int = 3
) -> list[float]:
    """x, y and visibility of each point, one after the other.

    Args:
        fractions: of the points.
        size: (height, width) of the image.
        numbers: of each point; with two, those below 0 are absent, and others visible.
    """
    found = []
    for start in range(0, len(fractions), numbers):
        x, y, *visible = fractions[start : start + numbers]
        if not visible and (min(x, y) < 0 or x == y == 0):
            x, y, visible = 0, 0, [0]
        visible = [int(v) if float(v).is_integer() else v for v in visible or [2]]
        found += [*polygon_in_pixels((x, y), size), *visible]
    return found


def area_of(polygon: Sequence[float]) -> float:
    """Pixels within a polygon of x, y, x, y, ..."""
    xs, ys = polygon[::2], polygon[1::2]
    pairs = zip(xs, ys, (*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True)
    return abs(sum(x * v - u * y for x, y, u, v in pairs)) / 2
