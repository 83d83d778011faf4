"""The rows of class layers, which belong to the names of classes.

The official package uses COCO's category ids as labels: 1 to 90 with ten holes, so that
its COCO models have 91 class rows. MMDetection numbers the same 80 classes from 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..class_names import ClassMatch, match_classes
from ..errors import list_names

CLASS_LAYER = '.fc_cls.'
"""In the names of the entries with a row for each class."""

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)
"""Category id of each of MMDetection's 80 labels."""

NUM_ID_ROWS = CATEGORY_IDS[-1] + 1
"""Class rows of a model whose labels are category ids."""

_UNUSED = ''  # the name of a row that stands for no class
_MOST_SHOWN = 12


def label_names() -> tuple[str, ...]:
    """Return the names of MMDetection's 80 labels."""
    from mmdet.datasets import CocoDataset  # takes seconds; hardly any caller needs it

    return CocoDataset.METAINFO['classes']


def row_names() -> tuple[str, ...]:
    """Return a name for each of the 91 class rows, also of those without a class."""
    names = [f'class {index}' for index in range(NUM_ID_ROWS)]
    for index, name in zip(CATEGORY_IDS, label_names(), strict=True):
        names[index] = name
    return tuple(names)


def are_rows_of_ids(num_rows: int, names: Sequence[str] | None) -> bool:
    """Tell whether the class rows of a checkpoint are numbered by category id.

    Args:
        num_rows: Rows of its class layers.
        names: Its class names; one without any is taken for COCO's.
    """
    return num_rows == NUM_ID_ROWS and (not names or are_label_names(names))


def are_label_names(names: Sequence[str]) -> bool:
    """Tell whether names are those of COCO's 80 classes, in the order of the labels.

    Args:
        names: Class names of a checkpoint; underscores stand for spaces in some.
    """
    if len(names) != len(CATEGORY_IDS):
        return False
    return [name.replace('_', ' ') for name in names] == list(label_names())


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
    found = _name_rows(num_rows, class_names)
    # Without names, a file may have been trained on just these classes; and labels
    # that are category ids are not the names of their rows.
    unnamed = class_names is None and num_rows - len(wanted) in (0, 1)
    of_ids = len(wanted) == NUM_ID_ROWS and tuple(wanted) == row_names()
    if found is None or unnamed or of_ids:
        return None
    match = match_classes(wanted, found)
    rows, _ = choose_rows(num_rows, len(wanted), class_names)
    return None if match.positions == tuple(rows) else match


def choose_rows(
    num_rows: int, num_classes: int, class_names: Sequence[str] | None
) -> tuple[list[int], str]:
    """Choose class rows of a file by position.

    - As many rows as classes: all.
    - 91 rows for 80 classes, in a file whose class names are COCO's or unknown: the
      row of each label's category id.
    - More rows than classes: the first ones. A file that was fine-tuned on C classes
      has C + 1 rows, the last of them unused, so it gives its C classes to a model
      that has as many.
    - Fewer: the rows again and again, so that no class starts from random numbers.

    Args:
        num_rows: Rows of the file's class layer.
        num_classes: Rows of the model's class layer.
        class_names: Class names of the file, None if it has none.

    Returns:
        The row for each class of the model, and a few words on the choice.
    """
    of_ids = are_rows_of_ids(num_rows, class_names)
    if num_classes == len(CATEGORY_IDS) and of_ids:
        return list(CATEGORY_IDS), 'rows picked by COCO category id'
    how = f'first {num_classes}' if num_rows > num_classes else 'repeated'
    return [i % num_rows for i in range(num_classes)], f'class rows {how}'


def take_rows(
    value: Tensor, own: Tensor, positions: Sequence[int | None], axis: int
) -> Tensor:
    """Take rows of a file; classes without one keep the model's.

    Args:
        value: a class layer's entry of the file.
        own: the same of the model.
        positions: a row of the file for each class of the model, or None.
        axis: where the rows are.

    Returns:
        An entry of the shape of ``own``.
    """
    rows = torch.tensor([row or 0 for row in positions], device=value.device)
    taken = value.index_select(axis, rows)
    new = [index for index, row in enumerate(positions) if row is None]
    if not new:
        return taken
    new = torch.tensor(new, device=value.device)
    return taken.index_copy(axis, new, own.to(value).index_select(axis, new))


def describe(match: ClassMatch, wanted: Sequence[str]) -> list[str]:
    """Say which class takes which row, in lines for the table of what was loaded."""
    taken = [
        f'{name} from row {row}'
        for name, row in zip(wanted, match.positions, strict=True)
        if row is not None
    ]
    lines = {
        'classes by name': taken or ['none in common'],
        'classes that start anew': match.missing,
        'classes of the file that are not used': [*filter(None, match.unused)],
    }
    said = [
        f'{title}: {list_names(names, _MOST_SHOWN)}'
        for title, names in lines.items()
        if names
    ]
    return [*said, match.suggestion()] if match.suggestion() else said


def _name_rows(num_rows: int, class_names: Sequence[str] | None) -> list[str] | None:
    """A name for each row of a file, empty for one without a class; None if unknown."""
    if are_rows_of_ids(num_rows, class_names):
        used = set(CATEGORY_IDS)
        return [n if i in used else _UNUSED for i, n in enumerate(row_names())]
    if class_names is None or len(class_names) not in (num_rows, num_rows - 1):
        return None
    if are_label_names(class_names):
        class_names = label_names()
    return [*map(str, class_names), _UNUSED][:num_rows]
