"""Detections of a data set as columns, the form in which they are evaluated.

Images are counted from 0, so that no id is too large for a float, or a text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmdet.datasets.api_wrappers import COCO


def box_columns(results: Sequence[dict]) -> np.ndarray:
    """Gather the boxes that ``CocoMetric.process`` took from each image.

    Args:
        results: dicts with ``bboxes`` (n, 4) xyxy, ``labels`` and ``scores``.

    Returns:
        (D, 7): image, corner x and y, width and height in pixels, score, label; JSON
        and pycocotools have float64, in which float32 boxes are exact.
    """
    counts = [len(each['labels']) for each in results]
    columns = np.empty((sum(counts), 7))
    columns[:, 0] = np.repeat(range(len(results)), counts)
    for key, place in (('bboxes', slice(1, 5)), ('scores', 5), ('labels', 6)):
        np.concatenate([result[key] for result in results], out=columns[:, place])
    with np.errstate(invalid='ignore'):
        columns[:, 3:5] -= columns[:, 1:3]
    return columns


class Kind(NamedTuple):
    """What a metric compares.

    Args:
        iou_type: whose overlaps count, by pycocotools' name.
        gather: makes what pycocotools' ``loadRes`` takes of the predictions that
            ``CocoMetric.process`` took from each image; None for their boxes.
        check: raises ``BadDataError`` for objects that cannot be compared. Called
            with the index of a file before the first step, and again with the
            (height, width) of the images by id.
    """

    iou_type: str
    gather: Callable[[Sequence[dict]], np.ndarray | list[dict]] | None = None
    check: Callable[[COCO, Mapping], None] = lambda index, sizes: None


KINDS = dict.fromkeys(('bbox', 'proposal'), Kind('bbox'))
"""What each metric compares, by its name."""
