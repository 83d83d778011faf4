"""Detections of a data set as columns, the form in which they are evaluated.

Images are counted from 0, so that no id is too large for a float, or a text.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.datasets.api_wrappers import COCO

from ..errors import ExplainedError


def require_labels(results: Sequence[dict], num_classes: int) -> None:
    """Stop at a detection of a class that the data does not have.

    Args:
        results: dicts with ``labels``.
        num_classes: K, of the data.

    Raises:
        ExplainedError: if a label is not one of 0 to K - 1.
    """
    for result in results:
        labels = result['labels']
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            raise ExplainedError(
                f'The model found class {int(wrong[0])}, and the data has only '
                f'{num_classes} classes, counted from 0: make '
                'model.bbox_head.num_classes and metainfo.classes of the data set '
                'those of the checkpoint.'
            )


def box_columns(results: Sequence[dict]) -> np.ndarray:
    """Gather the boxes that ``CocoMetric.process`` took from each image.

    Args:
        results: dicts with ``bboxes`` (n, 4) xyxy, ``labels`` and ``scores``.

    Returns:
        (D, 7): image, corner x and y, width and height in pixels, score, label; JSON
        and pycocotools have float64, in which float32 boxes are exact.
    """
    images = np.repeat(range(len(results)), [len(each['labels']) for each in results])
    boxes, scores, labels = (
        np.concatenate([result[key] for result in results]).astype(np.float64)
        for key in ('bboxes', 'scores', 'labels')
    )
    boxes = boxes.reshape(-1, 4)
    with np.errstate(invalid='ignore'):
        boxes[:, 2:] -= boxes[:, :2]
    return np.column_stack((images, boxes, scores, labels))


@dataclass(frozen=True)
class Kind:
    """What a metric compares.

    Args:
        iou_type: whose overlaps count, by pycocotools' name.
        gather: makes what pycocotools' ``loadRes`` takes of the predictions that
            ``CocoMetric.process`` took from each image.
        check: raises ``BadDataError`` for objects that cannot be compared. Called
            with the index of a file before the first step, and again with the
            (height, width) of the images by id.
    """

    iou_type: str
    gather: Callable[[Sequence[dict]], np.ndarray | list[dict]]
    check: Callable[[COCO, Mapping[Hashable, tuple[int, int]]], None] = (
        lambda index, sizes: None
    )


KINDS = dict.fromkeys(('bbox', 'proposal'), Kind('bbox', box_columns))
"""What each metric compares, by its name."""
