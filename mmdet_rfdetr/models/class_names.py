"""A name and a colour for each class of a model."""

from itertools import cycle, islice

from ..checkpoints.layout import ROW_NAMES


def complete_names(dataset_meta: dict, num_classes: int) -> None:
    """Name the labels of a model, and give each of them a colour.

    A model that keeps the 91 class rows of an official COCO checkpoint has category
    ids as labels, while the names beside them are for MMDetection's 80 labels; the
    file names its rows as well. A palette of 80 colours ends mmdet's visualizer at
    the first label beyond it.

    Args:
        dataset_meta: What mmdet's inference functions give a model; it is changed.
        num_classes: K, of the model.
    """
    names = dataset_meta.get(ROW_NAMES, ())
    if len(names) == num_classes:
        dataset_meta['classes'] = tuple(names)
    palette = dataset_meta.get('palette')
    if isinstance(palette, list) and len(palette) < num_classes:
        dataset_meta['palette'] = list(islice(cycle(palette), num_classes))
