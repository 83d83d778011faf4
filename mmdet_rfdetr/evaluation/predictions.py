"""Detections of a data set as columns, the form in which they are evaluated.

Images are counted from 0, so that no id is too large for a float, or a text.
"""

from collections.abc import Sequence

import numpy as np

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


def mask_entries(results: Sequence[dict]) -> list[dict]:
    """Gather the masks that ``CocoMetric.process`` took from each image.

    Args:
        results: dicts with ``masks``, ``labels``, and ``mask_scores`` or ``scores``.

    Returns:
        pycocotools' result list of run-length codes. It has no boxes, whose area
        pycocotools would take for that of the masks.
    """
    return [
        dict(image_id=image, category_id=label, score=score, segmentation=code)
        for image, result in enumerate(results)
        for label, score, code in zip(
            result['labels'].tolist(),
            result.get('mask_scores', result['scores']).tolist(),
            # Masks that decode where they are iterated have their codes beside.
            getattr(result['masks'], 'codes', result['masks']),
            strict=True,
        )
    ]
