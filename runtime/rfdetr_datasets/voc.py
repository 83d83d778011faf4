"""Pascal VOC: a file of XML for each image, maybe with lists of names in ImageSets."""

import os
import re
import xml.etree.ElementTree as ET

from .files import (
    DatasetError,
    Watch,
    image_entry,
    index_images,
    is_image,
    list_files,
    read_text,
    relative,
)

XML_FOLDERS = ('Annotations', 'annotations', 'xmls', 'xml')
IMAGE_FOLDERS = ('JPEGImages', 'images', 'Images', 'imgs')
NO_BOX = 'object without a box'
# The database counts pixels from 1 and includes the last; nearly all others do not.
_OF_THE_DATABASE = re.compile(r'The VOC\d* Database', re.IGNORECASE)
_MARKS = ('difficult', 'truncated', 'occluded')
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


class _Refused(Exception):
    """Something in a file of XML that annotations do not need."""


class _Builder(ET.TreeBuilder):
    def doctype(self, *_args) -> None:
        # Entities unfold without end, and may name files of this machine.
        raise _Refused('a document type, which annotations do not need')


def parse_xml(data: bytes) -> ET.Element:
    """Parse XML of strangers.

    Raises:
        ValueError: if it is none, or no annotation; says why.
    """
    try:
        root = ET.fromstring(data, ET.XMLParser(target=_Builder()))
    except (ET.ParseError, _Refused, LookupError, ValueError) as error:
        raise ValueError(f'no XML: {error}' if str(error) else 'no XML') from error
    if root.tag != 'annotation':
        raise ValueError(f'<{root.tag[:40]}> is no <annotation>')
    return root


def read_voc(path: str, watch: Watch = iter) -> dict:
    """Read a Pascal VOC data set, or one split of it.

    Args:
        path: a list of names, as ``ImageSets/Main/train.txt``, or a folder: with
            ``Annotations`` in it, or with files of XML.
        watch: is given the paths of the files, and gives them back.

    Returns:
        A COCO document, see the package. ``file_name`` is relative to
        :func:`voc_root`, classes are sorted by name, and ``difficult`` objects have
        ``ignore``. Boxes begin at 0 and end before ``xmax`` and ``ymax``, unless the
        file is of the VOC database, which counts from 1 and includes the last. An
        image whose file cannot be read has no ``file_name``, but an ``error``.

    Raises:
        DatasetError: if there is no XML at all.
    """
    root, folder = voc_root(path)
    paths = _list_xml(path, root, folder)
    if not paths:
        raise DatasetError(f'{path} leads to no file of XML.')
    parents = [os.path.join(root, name) for name in IMAGE_FOLDERS]
    beside = [os.path.join(root, '..', name) for name in IMAGE_FOLDERS]
    known = index_images([*parents, folder, root, *beside])
    images, annotations, names = [], [], set()
    for number, xml in enumerate(watch(paths), start=1):
        origin = relative(xml, root)
        try:
            with open(xml, 'rb') as file:
                element = parse_xml(file.read())
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
            # Without a name it is left out: it may be full of objects.
            images.append(dict(id=origin, file_name=None, error=reason))
            continue
        name = _image_of(element, xml, known, root)
        images.append(image_entry(number, name, _size_of(element)))
        database = _text(element, 'source/database') or ''
        start = 1.0 if _OF_THE_DATABASE.fullmatch(database) else 0.0
        for place, child in enumerate(element.iterfind('object'), start=1):
            found = _read_object(child, start)
            if (label := found['category_id']) is not None:
                names.add(label)
            ids = dict(id=f'{origin} object {place}', image_id=number)
            annotations.append(ids | found)
    order = {name: number for number, name in enumerate(sorted(names), start=1)}
    for annotation in annotations:
        annotation['category_id'] = order.get(annotation['category_id'])
    categories = [dict(id=number, name=name) for name, number in order.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def voc_root(path: str) -> tuple[str, str]:
    """The folder of a data set, to which its images are relative, and that of its XML.

    Args:
        path: as for :func:`read_voc`.
    """
    place = path if os.path.isdir(path) else os.path.dirname(path) or '.'
    parts = os.path.normpath(os.path.abspath(place)).split(os.sep)
    if 'ImageSets' in parts:  # ImageSets/Main/train.txt
        depth = len(parts) - parts.index('ImageSets')
        place = os.path.normpath(os.path.join(place, *['..'] * depth))
    elif os.path.isdir(path) and parts[-1] in XML_FOLDERS:
        return os.path.normpath(os.path.join(place, '..')), place
    for name in XML_FOLDERS:
        if os.path.isdir(os.path.join(place, name)):
            return place, os.path.join(place, name)
    return place, place


def is_xml(name: str) -> bool:
    """Whether the name of a file ends as those of XML do."""
    return name.lower().endswith('.xml')


def _list_xml(path: str, root: str, folder: str) -> list[str]:
    """Paths of the files of a split, in the order of its list or sorted."""
    if os.path.isdir(path):
        return list_files(folder, is_xml)
    found = {}
    for line in read_text(path).splitlines():
        # Lists of one class have 1, 0 or -1 behind each name.
        for name in (line.strip(), line.partition(' ')[0].strip()):
            xml = os.path.join(folder, f'{os.path.splitext(name)[0]}.xml')
            if name and os.path.isfile(xml):
                break
        else:
            xml = os.path.join(folder, f'{line.strip()}.xml')
        if line.strip():
            found[xml] = None
    return list(found)


def _image_of(element: ET.Element, xml: str, known: dict, root: str) -> str:
    """The name of the image of a file: as the XML is named, or as it says."""
    said = (_text(element, 'filename') or '').replace('\\', '/').rpartition('/')[2]
    stem = os.path.splitext(os.path.basename(xml))[0]
    for name in (said if os.path.splitext(said)[0] == stem else stem, stem, said):
        if name in known:
            return relative(known[name], root)
    return said if is_image(said) else f'{stem}.jpg'


def _size_of(element: ET.Element) -> tuple[int, int] | None:
    sides = (_number(_text(element, f'size/{side}')) for side in ('height', 'width'))
    height, width = (int(side) if side and 1 <= side < 1e9 else None for side in sides)
    return None if None in (height, width) else (height, width)


def _read_object(child: ET.Element, start: float) -> dict:
    """Category by name, box and marks of an object, as far as they are there."""
    found = dict(category_id=_text(child, 'name'), iscrowd=0)
    for mark in _MARKS:
        if _number(_text(child, mark)):
            found[mark] = 1
    if 'difficult' in found:
        found['ignore'] = 1
    sides = [_number(_text(child, f'bndbox/{side}')) for side in _SIDES]
    if None not in sides:
        left, top, right, bottom = sides
        left, top = left - start, top - start
        width, height = right - left, bottom - top
        found |= dict(bbox=[left, top, width, height], area=width * height)
    return found


def _text(element: ET.Element, path: str) -> str | None:
    """What stands in the first child of a path, stripped; None if nothing does."""
    return (element.findtext(path) or '').strip() or None


def _number(text: str | None) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def find_splits(folder: str) -> dict[str, str]:
    """Paths of the lists in ``ImageSets`` by their names."""
    for sub in ('ImageSets/Main', 'ImageSets', 'ImageSets/Layout'):
        place = os.path.join(folder, sub)
        names = sorted(os.listdir(place)) if os.path.isdir(place) else []
        if texts := [name[:-4] for name in names if name.endswith('.txt')]:
            return {name: os.path.join(place, f'{name}.txt') for name in texts}
    return {}
