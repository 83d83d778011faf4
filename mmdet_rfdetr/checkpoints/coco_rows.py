"""The two ways to number COCO's classes.

The official package uses the category ids as labels: 1 to 90 with ten holes, so that
its COCO models have 91 class rows. MMDetection numbers the same 80 classes from 0.
"""

from collections.abc import Sequence

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)
"""Category id of each of MMDetection's 80 labels."""

NUM_ID_ROWS = CATEGORY_IDS[-1] + 1
"""Class rows of a model whose labels are category ids."""


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
        names: Class names of a checkpoint.
    """
    if len(names) != len(CATEGORY_IDS):
        return False
    return [name.replace('_', ' ') for name in names] == list(label_names())
