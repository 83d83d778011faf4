"""Data sets written as COCO JSON or YOLO, and what such a format cannot say."""

import itertools
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .files import DatasetError, Watch, relative, slashes
from .yolo import box_in_pixels, polygon_in_pixels

_DECIMALS = (6, 9, 12)
_EXAMPLES = 2
_AREA = 0.01  # of an area; files round
_MARKS = dict(
    iscrowd='crowd regions', difficult='difficult objects', ignore='objects to ignore'
)
_KNOWN = {'id', 'image_id', 'category_id', 'bbox', 'area', 'segmentation', *_MARKS}


class Lost:
    """What was not written, or not as it was.

    Attributes:
        counts: how often, by what it is.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, what: str, example: object) -> None:
        """Count one more; ``example`` says where it is."""
        self.counts[what] += 1
        if self.counts[what] <= _EXAMPLES:
            self._examples.setdefault(what, []).append(str(example))

    def lines(self) -> Iterator[str]:
        """One line for each kind, the most frequent first."""
        for what, count in self.counts.most_common():
            yield f'{count} {what}, for example {"; ".join(self._examples[what])}'


def usable(document: dict, lost: Lost) -> list[tuple[dict, list[dict]]]:
    """Images with their objects, without what no format can hold.

    Args:
        document: of a COCO file, from any reader.
        lost: what is left out is added here.
    """
    categories = {entry.get('id') for entry in document['categories']}
    objects: dict = {image.get('id'): [] for image in document['images']}
    for annotation in document['annotations']:
        if not is_box(annotation.get('bbox')):
            what = 'objects without four finite box numbers'
        elif annotation.get('image_id') not in objects:
            what = 'objects of an image that is not listed'
        elif annotation.get('category_id') not in categories:
            what = 'objects of a class that is not listed'
        else:
            objects[annotation['image_id']].append(annotation)
            continue
        lost.add(f'{what}: left out', annotation.get('id'))
    kept = []
    for image in document['images']:
        key, name = image.get('id'), image.get('file_name')
        if isinstance(name, str) and key in objects:
            kept.append((image, objects.pop(key)))
        else:
            what = 'images without a name, or listed again: left out'
            lost.add(what, f'{key}: {image.get("error", name)}')
    return kept


def is_box(box: object) -> bool:
    """Whether something is four finite numbers."""
    if not isinstance(box, list) or len(box) != 4:
        return False
    return all(isinstance(side, int | float) and math.isfinite(side) for side in box)


def write_coco(
    document: dict,
    path: str | Path,
    *,
    lost: Lost | None = None,
    overwrite: bool = False,
    watch: Watch = iter,
) -> Lost:
    """Write a COCO file.

    Args:
        document: of any reader. Ids of objects that are no numbers are replaced.
        path: the file; it is there as a whole or not at all.
        lost: what is left out is added to it, where there is one.
        overwrite: whether to replace a file that is there.
        watch: is given the images with their objects, and gives them back.

    Returns:
        What was left out.

    Raises:
        DatasetError: if the file is there, or cannot be written.
    """
    lost = lost or Lost()
    parts = usable(document, lost)
    ids = [annotation.get('id') for _, objects in parts for annotation in objects]
    are_numbers = all(type(key) is int for key in ids) and len({*ids}) == len(ids)
    annotations = []
    for _, objects in watch(parts):
        for annotation in objects:
            area = annotation['bbox'][2] * annotation['bbox'][3]
            number = annotation['id'] if are_numbers else len(annotations) + 1
            whole = dict(area=area, iscrowd=0) | annotation | dict(id=number)
            annotations.append(whole)
    images = [image for image, _ in parts]
    written = dict(document, images=images, annotations=annotations)
    write_whole({Path(path): json.dumps(written, ensure_ascii=False)}, overwrite)
    return lost


def write_yolo(
    document: dict,
    folder: str | Path,
    split: str,
    classes: Sequence[str],
    *,
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
            yolo_line(annotation, labels[annotation['category_id']], size, lost)
            for annotation in objects
        )
        target = Path(folder, 'labels', split, (names or {}).get(name, name))
        texts[target.with_suffix('.txt')] = ''.join(filter(None, lines))
    write_whole(texts, overwrite)
    return lost


def yolo_line(
    annotation: dict, label: int | None, size: tuple[int, int], lost: Lost
) -> str | None:
    """The line of an object; None if YOLO has no such thing.

    Args:
        annotation: with ``bbox``.
        label: number of its class; None if it has none.
        size: (height, width) of its image.
        lost: what YOLO cannot say is added here.
    """
    own, mask = annotation.get('id'), annotation.get('segmentation')
    marks = [what for mark, what in _MARKS.items() if annotation.get(mark)]
    if label is None or marks:
        lost.add(f'{(marks or ["objects of no class"])[0]}: left out', own)
        return None
    for key in sorted(annotation.keys() - _KNOWN):
        lost.add(f'objects with "{key}": written without it', own)
    polygons = (
        [part for part in mask if len(part) > 5] if isinstance(mask, list) else []
    )
    if mask and not polygons:
        lost.add('masks that are no polygons: written as boxes', own)
    if len(polygons) > 1:
        lost.add('objects of several polygons: joined by lines of no width', own)
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
    return f'{label} {shortest(fractions, box_in_pixels, size)}\n'


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
    overwrite: bool = False,
) -> None:
    """Write the ``data.yaml`` of a folder that :func:`write_yolo` has filled.

    Raises:
        DatasetError: if it is there, or cannot be written.
    """
    import yaml

    settings = {split: f'images/{split}' for split in splits}
    settings['names'] = dict(enumerate(classes))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_whole({Path(folder, 'data.yaml'): text}, overwrite)


def target_names(document: dict) -> dict[str, str]:
    """Names below a new folder for the images of a document, by ``file_name``.

    Folders below that of all images stay. No two names differ in their ending alone,
    since they would share their labels.
    """
    names = [image.get('file_name') for image in document['images']]
    paths = {name: slashes(name) for name in names if isinstance(name, str)}
    try:
        root = os.path.commonpath([*map(os.path.dirname, paths.values())])
    except ValueError:  # there are none, or some are whole paths and some are not
        root = ''
    taken: set[str] = set()
    for name, path in paths.items():
        parts = relative(path, root or '.').split('/')
        # Labels are looked for where "images" stands in the path of an image.
        inside = not {'..', '', 'images'} & {*parts} and ':' not in parts[0]
        stem, ending = os.path.splitext('/'.join(parts) if inside else parts[-1])
        numbers = itertools.count(2)
        wanted = stem
        while wanted in taken:
            wanted = f'{stem}-{next(numbers)}'
        taken.add(wanted)
        paths[name] = wanted + ending
    return paths


def place_images(
    names: dict[str, str],
    root: str | Path,
    folder: str | Path,
    *,
    copy: bool,
    watch: Watch = iter,
) -> list[str]:
    """Link or copy images into a new folder.

    Args:
        names: see :func:`target_names`.
        root: where they are.
        folder: where they go; what is there already stays.
        copy: False makes symbolic links, or copies where the system has none.
        watch: is given the names, and gives them back.

    Returns:
        Those that do not exist.
    """
    missing = []
    for name in watch([*names]):
        source, place = Path(slashes(str(Path(root, name)))), Path(folder, names[name])
        if not source.is_file():
            missing.append(name)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            if copy or not _link(source, place):
                scratch = place.with_name(f'.{place.name}.part')
                shutil.copy2(source, scratch)
                scratch.replace(place)
    return missing


def _link(source: Path, place: Path) -> bool:
    """Whether a link could be made; Windows needs a right for it."""
    try:
        place.symlink_to(relative(str(source.resolve()), str(place.parent.resolve())))
    except OSError:
        return False
    return True


def write_whole(texts: dict[Path, str], overwrite: bool) -> None:
    """Write files, each of which is there as a whole or not at all.

    Raises:
        DatasetError: if one is there and may not be replaced, before any is written; or
            if it cannot be written.
    """
    there = [path for path in texts if path.exists()]
    if there and not overwrite:
        raise DatasetError(
            f'{there[0]} is there already: name another folder, or say that files may '
            'be replaced.'
        )
    for path, text in texts.items():
        scratch = path.with_name(f'.{path.name}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding='utf-8', newline='\n')
            scratch.replace(path)
        except OSError as error:
            what = f'{path} cannot be written: {error.strerror}.'
            raise DatasetError(what) from error
        finally:
            if scratch.is_file():
                scratch.unlink()
