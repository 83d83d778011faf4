"""Recall of proposals by pairing every object with one box."""

from collections.abc import Sequence

import numpy as np
from mmdet.evaluation.functional import eval_recalls


def proposal_recalls(
    objects: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray],
    proposal_nums: Sequence[int],
    iou_thrs: Sequence[float],
) -> np.ndarray:
    """Compute the share of objects found, over all images.

    mmdet's ``eval_recalls`` takes all images at once only if they hold equally many
    objects and proposals, with the numpy versions of today; so it gets one by one.

    Args:
        objects: boxes (n, 4) xyxy of each image.
        proposals: boxes (m, 4) xyxy of each image, the best first.
        proposal_nums: P numbers of proposals to look at.
        iou_thrs: T overlaps from which on an object counts as found.

    Returns:
        (P, T) recalls, NaN if there is no object.
    """
    found = np.zeros((len(proposal_nums), len(iou_thrs)))
    for boxes, proposed in zip(objects, proposals, strict=True):
        if len(boxes):
            recalls = eval_recalls(
                [boxes], [proposed], proposal_nums, iou_thrs, logger='silent'
            )
            found += np.rint(recalls * len(boxes))
    total = sum(map(len, objects))
    return found / total if total else np.full_like(found, np.nan)
