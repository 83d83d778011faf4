"""The rows of class layers, which belong to the names of classes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..class_names import ClassMatch, match_classes
from . import adapt, coco_rows

CLASS_LAYER = '.fc_cls.'
"""In the names of the entries with a row for each class."""

_UNUSED = ''  # the name of a row that stands for no class
_MOST_SHOWN = 12


def name_rows(num_rows: int, class_names: Sequence[str] | None) -> list[str] | None:
    """Name the rows of a file's class layers.

    Args:
        num_rows: rows of the file.
        class_names: its class names, None if it has none.

    Returns:
        A name for each row, empty for one without a class; None if it is not known
        which row belongs to which name.
    """
    if coco_rows.are_rows_of_ids(num_rows, class_names):
        rows = [_UNUSED] * num_rows
        for row, name in zip(
            coco_rows.CATEGORY_IDS, coco_rows.label_names(), strict=True
        ):
            rows[row] = name
        return rows
    if class_names is None or len(class_names) not in (num_rows, num_rows - 1):
        return None
    if coco_rows.are_label_names(class_names):
        class_names = coco_rows.label_names()  # which some write in another way
    return [*map(str, class_names), _UNUSED][:num_rows]


def match_rows(
    num_rows: int, class_names: Sequence[str] | None, wanted: Sequence[str]
) -> ClassMatch | None:
    """Find the row of each class of a model by its name.

    Args:
        num_rows: rows of the file's class layers.
        class_names: class names of the file, None if it has none.
        wanted: class names of the model, in the order of its rows.

    Returns:
        Positions among the rows of the file; None where these are not named, or where
        the model takes the same rows by their positions.
    """
    found = name_rows(num_rows, class_names)
    # Without names, a file may have been trained on just these classes.
    unnamed = class_names is None and num_rows - len(wanted) in (0, 1)
    if found is None or unnamed or _are_names_of_ids(wanted):
        return None
    match = match_classes(wanted, found)
    if num_rows == len(wanted):
        rows = range(num_rows)
    else:
        rows, _ = adapt.choose_class_rows(num_rows, len(wanted), class_names)
    return None if match.positions == tuple(rows) else match


def _are_names_of_ids(classes: Sequence[str]) -> bool:
    """Whether labels are COCO's category ids, some of which stand for no class."""
    return (
        len(classes) == coco_rows.NUM_ID_ROWS
        and tuple(classes) == coco_rows.row_names()
    )


def take_rows(value: Tensor, own: Tensor, match: ClassMatch, axis: int) -> Tensor:
    """Take the rows of a file by name; classes without one keep the model's.

    Args:
        value: a class layer's entry of the file.
        own: the same of the model.
        match: rows of the file for the classes of the model.
        axis: where the rows are.

    Returns:
        An entry of the shape of ``own``.
    """
    rows = torch.tensor([row or 0 for row in match.positions], device=value.device)
    new = [index for index, row in enumerate(match.positions) if row is None]
    new = torch.tensor(new, dtype=torch.long, device=value.device)
    fresh = own.to(value).index_select(axis, new)
    return value.index_select(axis, rows).index_copy(axis, new, fresh)


def describe(match: ClassMatch, wanted: Sequence[str]) -> list[str]:
    """Say which class takes which row, in lines for the table of what was loaded."""
    taken = [
        f'{name} from row {row}'
        for name, row in zip(wanted, match.positions, strict=True)
        if row is not None
    ]
    unused = [name for name in match.unused if name != _UNUSED]
    lines = [f'classes by name: {_list(taken) or "none in common"}']
    if match.missing:
        lines.append(f'classes that start anew: {_list(match.missing)}')
    if unused:
        lines.append(f'classes of the file that are not used: {_list(unused)}')
    if match.suggestion():
        lines.append(match.suggestion())
    return lines


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ', '.join(names[:_MOST_SHOWN]) + (f' and {more} more' if more > 0 else '')


def fit_class_rows(
    entries: dict[str, Tensor], own: Mapping[str, Tensor], match: ClassMatch
) -> list[str]:
    """Fit the class layers of a file to a model by name, in place.

    Args:
        entries: of the file, under the model's names.
        own: the model's.
        match: rows of the file for the classes of the model.

    Returns:
        The names of the entries. Those that differ in more than the number of rows are
        left alone.
    """
    fitted = []
    for name, value in entries.items():
        if CLASS_LAYER not in name or name not in own:
            continue
        axis = int(name.startswith('query_selection.'))  # heads, stacked by group
        if axis:
            value = value[: len(own[name])]
        others = [
            shape[:axis] + shape[axis + 1 :] for shape in (value.shape, own[name].shape)
        ]
        if others[0] == others[1]:
            entries[name] = take_rows(value, own[name], match, axis)
            fitted.append(name)
    return fitted
