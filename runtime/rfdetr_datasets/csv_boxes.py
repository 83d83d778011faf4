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
_CORNERS, _SIZED = ('left', 'top', 'right', 'bottom'), ('x', 'y', 'w', 'h')
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
    if split is not None and 'split' in columns:
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
        image = images.get(name)
        if image is None:
            image = _image_entry(name, len(images) + 1, row, columns, known, folder)
            images[name] = image
        box, is_empty = _box(row, columns)
        if is_empty:
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


def read_rows(path: str) -> tuple[dict[str, int], list[tuple[int, Sequence[str]]]]:
    """Columns by role, and rows with the number of their line.

    Raises:
        DatasetError: if a column that is needed is missing.
    """
    lines = read_text(path).splitlines()
    header = next((line for line in lines if line.strip()), '')
    delimiter = max(',;\t', key=header.count)
    try:
        rows = _read_table(lines, delimiter)
    except csv.Error as error:
        raise DatasetError(f'{path} is no table of text: {error}.') from error
    names = [_plain(name) for name in rows[0][1]] if rows else []
    columns = _roles(names)
    if not _is_complete(columns) and rows and _is_retinanet(rows[0][1]):
        # As keras-retinanet has it: no header, and the class last.
        columns = dict(zip(('image', *_CORNERS, 'label'), range(6), strict=True))
        return columns, rows
    if not _is_complete(columns):
        shown = ', '.join(name[:30] for name in rows[0][1][:12]) if rows else 'nothing'
        raise DatasetError(f'{path} has the columns {shown}. {NEEDED}')
    return columns, rows[1:]


def is_table(path: str) -> bool:
    """Whether a CSV has the columns of boxes."""
    try:
        read_rows(path)
    except DatasetError:
        return False
    return True


def _read_table(lines: list[str], delimiter: str) -> list[tuple[int, list[str]]]:
    rows, reader = [], csv.reader(lines, delimiter=delimiter)
    before = 0
    for row in reader:
        if any(cell.strip() for cell in row):
            rows.append((before + 1, row))
        before = reader.line_num
    return rows


def _plain(name: str) -> str:
    return re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')


def _roles(names: list[str]) -> dict[str, int]:
    """Number of the column of each role, the first that is usual for it."""
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


def _is_complete(columns: dict[str, int]) -> bool:
    box = ({*_CORNERS}, {*_SIZED}, {'bbox'})
    return 'image' in columns and any(part <= columns.keys() for part in box)


def _is_retinanet(row: Sequence[str]) -> bool:
    if len(row) != 6:
        return False
    cells = [cell.strip() for cell in row[1:5]]
    return all(re.fullmatch(r'-?[0-9.]+', cell) for cell in cells) or not any(cells)


def _cell(row: Sequence[str], columns: dict[str, int], role: str) -> str:
    number = columns.get(role, len(row))
    return row[number].strip() if number < len(row) else ''


def _box(
    row: Sequence[str], columns: dict[str, int]
) -> tuple[list[float] | None, bool]:
    """Left, top, width and height, if these are numbers; whether all are empty."""
    for names in (_CORNERS, _SIZED, ('bbox',)):
        if {*names} <= columns.keys():
            break
    cells = [_cell(row, columns, name) for name in names]
    if not any(cells):
        return None, True
    if names == ('bbox',):  # "[834.0, 222.0, 56.0, 36.0]"
        cells = re.split(r'[\s,]+', cells[0].strip('[]() '))
    try:
        # With semicolons between columns, commas stand before decimals.
        numbers = [float(cell.replace(',', '.')) for cell in cells]
    except ValueError:
        return None, False
    if len(numbers) != 4:
        return None, False
    if names == _CORNERS:
        left, top, right, bottom = numbers
        numbers = [left, top, right - left, bottom - top]
    return numbers, False


def _image_entry(
    name: str,
    number: int,
    row: Sequence[str],
    columns: dict[str, int],
    known: dict[str, str],
    folder: str,
) -> dict:
    """The entry of an image; without a name it has none, and is left out."""
    if not name:
        return dict(image_entry(number, name, None), file_name=None)
    said = name.replace('\\', '/')
    tries = (os.path.join(folder, name), os.path.join(folder, said))
    path = next((path for path in tries if os.path.isfile(path)), None)
    path = path or known.get(said.rpartition('/')[2])
    sides = [_cell(row, columns, f'image_{side}') for side in ('height', 'width')]
    if all(side.isdecimal() and int(side) for side in sides):
        size = tuple(map(int, sides))
    else:
        size = read_size(path) if path else None
    return image_entry(number, relative(path, folder) if path else name, size)


def splits_of(path: str) -> list[str]:
    """Which splits a table names in a column of its own."""
    columns, rows = read_rows(path)
    if 'split' not in columns:
        return []
    said = {_cell(row, columns, 'split') for _, row in rows}
    found = {split_of(name) for name in said}
    return [split for split in SPLITS if split in found]
