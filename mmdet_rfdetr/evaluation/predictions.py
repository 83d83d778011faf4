"""Detections of a data set as columns, the form in which they are evaluated."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.annotations import as_id
from ..errors import ExplainedError


def sort_ids(ids: Iterable[Hashable]) -> list[Hashable]:
    """Sort ids of images or categories once each, numbers before text."""

    def order(key: Hashable) -> tuple[bool, Hashable]:
        number = as_id(key)
        return isinstance(number, str), number

    return sorted(set(ids), key=order)


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


@dataclass
class Detections:
    """What was found in all images, D detections.

    Images and categories are counted from 0, so that no id is too large for a float,
    or a text; pycocotools breaks ties by their order, which is that of the ids.

    Args:
        images: (D,) which image.
        categories: (D,) which category.
        boxes: (D, 4) corner x and y, width and height in pixels.
        scores: (D,) confidence of the boxes.
        masks: run-length codes, and ``mask_scores``, (D,); None without masks.
    """

    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict] | None = None
    mask_scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def from_results(
        cls, results: Sequence[dict], image_rank: dict, label_rank: np.ndarray
    ) -> 'Detections':
        """Gather what ``CocoMetric.process`` made of each image.

        Args:
            results: dicts with ``img_id``, ``bboxes`` (n, 4) xyxy, ``labels``,
                ``scores`` and, with masks, ``masks`` and maybe ``mask_scores``.
            image_rank: image id to its position among the ids.
            label_rank: label to the position of its category among the ids.

        Raises:
            ExplainedError: if a label is none of the classes of the data.
        """
        counts = [len(result['labels']) for result in results]
        ranks = [image_rank[result['img_id']] for result in results]
        # JSON and pycocotools have float64, in which float32 boxes are exact.
        boxes = np.concatenate([result['bboxes'] for result in results])
        boxes = boxes.astype(np.float64).reshape(-1, 4)
        with np.errstate(invalid='ignore'):
            boxes[:, 2:] -= boxes[:, :2]
        scores = _column(results, 'scores')
        labels = _column(results, 'labels').astype(np.int64)
        require_labels(results, len(label_rank))
        has_masks = 'masks' in results[0]
        masks = [
            # The masks of our models are codes by index, and pixels by iteration.
            result['masks'][index]
            for result, count in zip(results, counts, strict=True)
            for index in range(count if has_masks else 0)
        ]
        mask_scores = 'mask_scores' if 'mask_scores' in results[0] else 'scores'
        return cls(
            images=np.repeat(ranks, counts),
            categories=label_rank[labels],
            boxes=boxes,
            scores=scores,
            masks=masks if has_masks else None,
            mask_scores=_column(results, mask_scores) if has_masks else None,
        )

    def as_dicts(self, iou_type: str) -> list[dict]:
        """Make pycocotools' result list.

        Args:
            iou_type: ``'bbox'``, or ``'segm'`` for masks without boxes: with boxes,
                pycocotools would take their area for that of the masks.
        """
        if iou_type == 'segm':
            key, shapes, scores = 'segmentation', self.masks, self.mask_scores
        else:
            key, shapes, scores = 'bbox', self.boxes.tolist(), self.scores
        return [
            {'image_id': image, 'category_id': category, 'score': score, key: shape}
            for image, category, score, shape in zip(
                self.images.tolist(),
                self.categories.tolist(),
                scores.tolist(),
                shapes,
                strict=True,
            )
        ]

    def as_array(self) -> np.ndarray:
        """Make pycocotools' result array (D, 7): image, box, score, category."""
        return np.column_stack((self.images, self.boxes, self.scores, self.categories))


def _column(results: Sequence[dict], key: str) -> np.ndarray:
    """One number for each detection, float64."""
    return np.concatenate([result[key] for result in results]).astype(np.float64)
