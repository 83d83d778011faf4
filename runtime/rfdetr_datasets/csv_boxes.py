"""A table of boxes, one in each line, with the columns that are usual."""

import csv
import os
import re
from collections.abc import Sequence

from .files import (
    SPLITS,
    DatasetError,
    Watch,
    image_entry,
    index_images,
    read_size,
    read_text,
    relative,
    slashes,
    split_of,
)
from .voc import IMAGE_FOLDERS

_NAMES = dict(
    image='filename file_name image image_path imagepath path img_path img image_name '
    'imagename imageid image_id file external_id',
    label='class label label_name labelname class_name classname name category '
    'category_name object',
    left='xmin x_min x1 left bbox_x1 xtl',
    top='ymin y_min y1 top bbox_y1 ytl',
    right='xmax x_max x2 right bbox_x2 xbr',
    bottom='ymax y_max y2 bottom bbox_y2 ybr',
    x='x bbox_x box_x',
    y='y bbox_y box_y',
    w='w bbox_w bbox_width box_width box_w',
    h='h bbox_h bbox_height box_height box_h',
    bbox='bbox box',
    image_width='image_width img_width imagewidth width_image',
    image_height='image_height img_height imageheight height_image',
    width='width',
    height='height',
    split='split set subset partition',
    crowd='isgroupof iscrowd is_crowd',
)
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
_CORNERS = ('left', 'top', 'right', 'bottom')
_BOXES = _CORNERS, ('x', 'y', 'w', 'h'), ('bbox',)
_NUMBER = re.compile(r'\s*-?[0-9.]*\s*')
_ONE_CLASS = 'object'
NEEDED = (
    'It needs the columns filename, class, xmin, ymin, xmax and ymax (or x, y, w and '
    'h, or bbox) under a header; width and height of the image, and split, may be '
    'there.'
)


def read_csv(path: str, split: str | None = None, watch: Watch = iter) -> dict:
    """Read a table of boxes.

    Args:
        path: the file, with commas, semicolons or tabs.
        split: of a table with a column ``split`` the part to read; None reads all.
        watch: is given the rows, and gives them back.

    Returns:
        A COCO document, see the package. ``file_name`` is relative to the folder of
        ``path``, classes are sorted by name; without a column of classes there is one.
        An image of which all cells of the box are empty has no objects. The images are
        those of the table.

    Raises:
        DatasetError: if columns are missing; says which are needed.
    """
    columns, rows = read_rows(path)
    if split is not None:
        if 'split' not in columns:
            raise DatasetError(f'{path} has no column split: leave #{split} out.')
        rows = [
            row for row in rows if split_of(_cell(row[1], columns, 'split')) == split
        ]
    folder = os.path.dirname(path) or '.'
    places = [os.path.join(folder, name) for name in IMAGE_FOLDERS]
    parts = [os.path.join(folder, name) for names in SPLITS.values() for name in names]
    beside = [os.path.join(folder, '..', name) for name in IMAGE_FOLDERS]
    known = index_images([folder, *places, *parts, *beside])
    images: dict[str, dict] = {}
    labels = {_cell(row, columns, 'label') or None for _, row in rows}
    order = {name: n for n, name in enumerate(sorted(labels - {None}), start=1)}
    if 'label' not in columns:
        order = {_ONE_CLASS: 1}
    annotations = []
    for line, row in watch(rows):
        name = _cell(row, columns, 'image')
        if name not in images:
            number = len(images) + 1
            images[name] = _image_entry(number, row, columns, known, folder)
        image, box = images[name], _box(row, columns)
        if box == []:
            continue
        key = order.get(_cell(row, columns, 'label') or _ONE_CLASS)
        found = dict(id=f'{os.path.basename(path)}:{line}', image_id=image['id'])
        found |= dict(category_id=key, iscrowd=0)
        if _cell(row, columns, 'crowd').lower() in ('1', 'true'):
            found['iscrowd'] = 1
        if box is not None:
            if 'fractions' in columns:
                if image['width'] is None:
                    continue  # left out with its image, as a fraction of nothing
                sides = image['width'], image['height']
                box = [round(part * sides[n % 2], 6) for n, part in enumerate(box)]
            found |= dict(bbox=box, area=box[2] * box[3])
        annotations.append(found)
    categories = [dict(id=number, name=name) for name, number in order.items()]
    return dict(
        images=[*images.values()], annotations=annotations, categories=categories
    )


def read_rows(path: str) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """Columns by role, and rows with the number of their line.

    Raises:
        DatasetError: if a column that is needed is missing.
    """
    lines = read_text(path).splitlines()
    header = next((line for line in lines if line.strip()), '')
    reader = csv.reader(lines, delimiter=max(',;\t', key=header.count))
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DatasetError(f'{path} is no table of text: {error}.') from error
    first = rows[0][1] if rows else ['nothing']
    if len(first) == 6 and all(_NUMBER.fullmatch(cell) for cell in first[1:5]):
        # As keras-retinanet has it: no header, and the class last.
        return {role: n for n, role in enumerate(('image', *_CORNERS, 'label'))}, rows
    columns = _roles(first)
    boxes = any({*names} <= columns.keys() for names in _BOXES)
    if 'image' not in columns or not boxes:
        shown = ', '.join(name[:30] for name in first[:12])
        raise DatasetError(f'{path} has the columns {shown}. {NEEDED}')
    return columns, rows[1:]


def is_table(path: str) -> bool:
    """Whether a CSV has the columns of boxes."""
    try:
        read_rows(path)
    except DatasetError:
        return False
    return True


def _roles(names: list[str]) -> dict[str, int]:
    """Number of the column of each role, the first that is usual for it."""
    names = [re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_') for name in names]
    numbers = {name: number for number, name in reversed([*enumerate(names)])}
    columns = {}
    for role, usual in _NAMES.items():
        found = [numbers[name] for name in usual.split() if name in numbers]
        if found:
            columns[role] = found[0]
    # Beside x and y they are of the box, beside corners of the image.
    is_of_box = {'x', 'y'} <= columns.keys() and 'w' not in columns
    for side in ('width', 'height'):
        if side in columns:
            role = side[0] if is_of_box else f'image_{side}'
            columns.setdefault(role, columns.pop(side))
    if {'imageid', 'labelname'} <= numbers.keys():
        # Open Images writes fractions, under names that nobody else has.
        columns['fractions'] = 0
    return columns


def _cell(row: Sequence[str], columns: dict[str, int], role: str) -> str:
    number = columns.get(role, len(row))
    return row[number].strip() if number < len(row) else ''


def _box(row: Sequence[str], columns: dict[str, int]) -> list[float] | None:
    """Left, top, width and height; None if they are no numbers, empty if not there."""
    names = next(names for names in _BOXES if {*names} <= columns.keys())
    cells = [_cell(row, columns, name) for name in names]
    if not any(cells):
        return []
    if len(names) == 1:  # "[834.0, 222.0, 56.0, 36.0]"
        cells = re.split(r'[\s,]+', cells[0].strip('[]() '))
    try:
        # With semicolons between columns, commas stand before decimals.
        x, y, *rest = (float(cell.replace(',', '.')) for cell in cells)
        width, height = (rest[0] - x, rest[1] - y) if names == _CORNERS else rest
    except ValueError:
        return None
    return [x, y, width, height]


def _image_entry(
    number: int, row: Sequence[str], columns: dict[str, int], known: dict, folder: str
) -> dict:
    """The entry of an image; without a name it has none, and is left out."""
    name = _cell(row, columns, 'image')
    path = slashes(os.path.join(folder, name))
    if not os.path.isfile(path):
        path = known.get(path.rpartition('/')[2])
    sides = [_cell(row, columns, f'image_{side}') for side in ('height', 'width')]
    if all(side.isdecimal() and int(side) for side in sides):
        size = tuple(map(int, sides))
    else:
        size = read_size(path) if path else None
    entry = image_entry(number, relative(path, folder) if path else name, size)
    return entry if name else dict(entry, file_name=None)


def splits_of(path: str) -> list[str]:
    """Which splits a table names in a column of its own."""
    columns, rows = read_rows(path)
    if 'split' not in columns:
        return []
    said = {_cell(row, columns, 'split') for _, row in rows}
    found = {split_of(name) for name in said}
    return [split for split in SPLITS if split in found]
