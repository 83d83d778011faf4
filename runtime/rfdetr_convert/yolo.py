"""Labels of YOLO, one text for each image, and the ``data.yaml`` above them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rfdetr_datasets.files import Watch
from rfdetr_datasets.points import (
    PointScheme,
    agreed_swap,
    is_swap,
    points_of_categories,
    stated_swap,
)
from rfdetr_datasets.yolo import box_in_pixels, points_in_pixels, polygon_in_pixels

from .usable import Lost, is_numbers, usable
from .whole_files import write_whole

_DECIMALS = (6, 9, 12)
_AREA = 0.01  # of an area; files round
_MARKS = dict(
    iscrowd='crowd regions', difficult='difficult objects', ignore='objects to ignore'
)
_OF_POINTS = {'keypoints', 'num_keypoints'}
_KNOWN = {'id', 'image_id', 'category_id', 'bbox', 'area', 'segmentation', *_MARKS}


def write_yolo(
    document: dict,
    folder: str | Path,
    split: str,
    classes: Sequence[str],
    *,
    scheme: PointScheme | None = None,
    names: dict[str, str] | None = None,
    lost: Lost | None = None,
    overwrite: bool = False,
    watch: Watch = iter,
) -> Lost:
    """Write labels of YOLO, one text for each image, into ``labels/SPLIT``.

    Fractions have as many digits, six to twelve, as are read as the same pixels.

    Args:
        document: of any reader.
        folder: of the data set; see :func:`write_settings` for its ``data.yaml``.
        split: which part it is.
        classes: names of the classes in the order of their numbers.
        scheme: of the points that every object gets, see :func:`point_scheme`; None
            writes boxes and polygons.
        names: by ``file_name`` the name of each image below ``images/SPLIT``; the same
            if left out.
        lost: as for :func:`write_coco`.
        overwrite: whether to replace files that are there.
        watch: is given the images with their objects, and gives them back.

    Returns:
        What YOLO cannot say, or was left out.

    Raises:
        DatasetError: if a file is there, or cannot be written.
    """
    lost, texts = lost or Lost(), {}
    order = {name: number for number, name in enumerate(classes)}
    labels = {
        entry.get('id'): order.get(str(entry.get('name')))
        for entry in document['categories']
    }
    for image, objects in watch(usable(document, lost)):
        name = image['file_name']
        size = image.get('height'), image.get('width')
        if None in size and objects:
            lost.add('images of unknown size: written without objects', name)
            objects = []
        lines = (
            yolo_line(annotation, labels[annotation['category_id']], size, lost, scheme)
            for annotation in objects
        )
        target = Path(folder, 'labels', split, (names or {}).get(name, name))
        texts[target.with_suffix('.txt')] = ''.join(filter(None, lines))
    write_whole(texts, overwrite)
    return lost


def yolo_line(
    annotation: dict,
    label: int | None,
    size: tuple[int, int],
    lost: Lost,
    scheme: PointScheme | None = None,
) -> str | None:
    """The line of an object; None if YOLO has no such thing.

    Args:
        annotation: with ``bbox``.
        label: number of its class; None if it has none.
        size: (height, width) of its image.
        lost: what YOLO cannot say is added here.
        scheme: of its points, None for a box or polygon.
    """
    own = annotation.get('id')
    marks = [what for mark, what in _MARKS.items() if annotation.get(mark)]
    if label is None or marks:
        lost.add(f'{(marks or ["objects of no class"])[0]}: left out', own)
        return None
    for key in sorted(annotation.keys() - (_KNOWN | _OF_POINTS if scheme else _KNOWN)):
        lost.add(f'objects with "{key}": written without it', own)
    polygons = _polygons(annotation, scheme, lost)
    area = annotation['bbox'][2] * annotation['bbox'][3]
    if not polygons and abs(annotation.get('area', area) - area) > _AREA * area:
        lost.add('objects with an "area" of their own: that of the box counts', own)
    if polygons:
        sides, numbers = (size[1], size[0]), join_polygons(polygons)
        fractions = [part / sides[n % 2] for n, part in enumerate(numbers)]
        return f'{label} {shortest(fractions, polygon_in_pixels, size)}\n'
    x, y, width, height = annotation['bbox']
    center = (x + width / 2) / size[1], (y + height / 2) / size[0]
    fractions = *center, width / size[1], height / size[0]
    if not scheme:
        return f'{label} {shortest(fractions, box_in_pixels, size)}\n'
    points = _points(annotation, len(scheme.names), lost)
    sides = size[1], size[0], 1
    fractions = *fractions, *(part / sides[n % 3] for n, part in enumerate(points))
    return f'{label} {shortest(fractions, _pose_in_pixels, size)}\n'


def _polygons(
    annotation: dict, scheme: PointScheme | None, lost: Lost
) -> list[list[float]]:
    """The polygons of an object, of which a line with points has none."""
    own, mask = annotation.get('id'), annotation.get('segmentation')
    if mask and scheme:
        lost.add('masks of objects with points: written as boxes', own)
        return []
    polygons = [x for x in mask if len(x) > 5] if isinstance(mask, list) else []
    if mask and not polygons:
        lost.add('masks that are no polygons: written as boxes', own)
    if len(polygons) > 1:
        lost.add('objects of several polygons: joined by lines of no width', own)
    return polygons


def _points(annotation: dict, count: int, lost: Lost) -> list[float]:
    """x, y and visibility of ``count`` points, absent ones where there are fewer."""
    points, own = annotation.get('keypoints') or [], annotation.get('id')
    if not is_numbers(points):
        lost.add('objects whose points are no numbers: written with absent ones', own)
        points = []
    elif not points:
        lost.add('objects without points: written with absent ones', own)
    elif len(points) != 3 * count:
        lost.add(f'objects of other than {count} points: cut or filled up', own)
    whole = len(points) // 3 * 3
    return [*points[:whole], *[0] * 3 * count][: 3 * count]


def _pose_in_pixels(fractions: Sequence[float], size: tuple[int, int]) -> list[float]:
    """The box and the points of a line."""
    box, points = fractions[:4], fractions[4:]
    return [*box_in_pixels(box, size), *points_in_pixels(points, size)]


def point_scheme(documents: Sequence[dict]) -> PointScheme | None:
    """The points of YOLO labels for documents, those of the class that has the most.

    Args:
        documents: of the splits; categories may have ``keypoints``, their names, and
            ``flip_indices``. Without the latter, names say which sides are swapped, if
            those of all classes agree.

    Returns:
        None if no object has points.
    """
    lists: dict[str, list[str]] = {}
    for document in documents:
        found = points_of_categories(document['categories'], document['annotations'])
        for category, names in found.items():
            lists[category] = max(lists.get(category, []), names, key=len)
    own = [names for names in lists.values() if names]
    if not own:
        return None
    names = max(own, key=len)
    swap = stated_swap(part for each in documents for part in each['categories'])
    if not is_swap(swap, len(names)):
        swap = agreed_swap(own)
    return PointScheme(names, swap)


def join_polygons(polygons: Sequence[Sequence[float]]) -> list[float]:
    """One polygon that covers several, joined at the first point of each."""
    first, *others = polygons
    joined = list(first)
    for polygon in others:
        joined += [*first[:2], *polygon, *polygon[:2]]
    return joined + list(first[:2]) * bool(others)


def shortest(fractions: Sequence[float], read: Callable, size: tuple[int, int]) -> str:
    """Fractions with the fewest digits that are read as the same pixels."""
    exact = read(fractions, size)
    for decimals in _DECIMALS:
        texts = [f'{value:.{decimals}f}'.rstrip('0').rstrip('.') for value in fractions]
        if read([*map(float, texts)], size) == exact:
            break
    return ' '.join(texts)


def write_settings(
    folder: str | Path,
    classes: Sequence[str],
    splits: Iterable[str],
    *,
    scheme: PointScheme | None = None,
    overwrite: bool = False,
) -> None:
    """Write the ``data.yaml`` of a folder that :func:`write_yolo` has filled.

    Args:
        folder: of the data set.
        classes: as for :func:`write_yolo`.
        splits: the parts that are there.
        scheme: as for :func:`write_yolo`.
        overwrite: whether to replace a file that is there.

    Raises:
        DatasetError: if it is there, or cannot be written.
    """
    import yaml

    settings = {split: f'images/{split}' for split in splits}
    settings['names'] = dict(enumerate(classes))
    if scheme:
        settings['kpt_shape'] = [len(scheme.names), scheme.numbers]
        if scheme.swap is not None:
            settings['flip_idx'] = scheme.swap
        # Lists of their own: YAML would write a reference to one.
        settings['kpt_names'] = {n: [*scheme.names] for n in range(len(classes))}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_whole({Path(folder, 'data.yaml'): text}, overwrite)
