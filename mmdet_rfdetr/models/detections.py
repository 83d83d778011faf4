"""From raw outputs to the detections of a batch, without a read by the host."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.boxes import cxcywh_to_xyxy
from ..ops.constants import constant
from ..ops.transfer import upload
from ..precision import float32_island

_SHIFT = 2**33


def top_scores(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest scores first, NaN before all; among equal scores the lower index wins.

    Equal to a stable descending sort that is cut after ``count`` entries, without
    sorting everything: the negative bits of a non-negative float and, below them, the
    index make one integer, which has no ties. The bits are shifted by one more than
    their number, so the sign is lost: that of NaN, which any operation may set, says
    nothing.

    Args:
        scores: (B, entries) float32, none negative.
        count: entries to take, at most all.

    Returns:
        Tuple of the scores (B, count) and their indices (B, count).
    """
    entries = scores.shape[-1]
    if torch.onnx.is_in_onnx_export():
        # ONNX reads no bits of a float, and its TopK prefers the lower index itself.
        return tuple(scores.topk(min(count, entries), dim=-1))
    bits = scores.contiguous().view(torch.int32)
    keys = torch.sub(_last_keys(entries, scores.device), bits, alpha=_SHIFT)
    keys = keys.topk(min(count, entries), dim=-1, largest=False).values
    indices = keys & (_SHIFT - 1)
    return scores.gather(-1, indices), indices


@constant
def _last_keys(count: int, device: torch.device) -> Tensor:
    """The keys of scores of zero, so large that no smaller key overflows."""
    return torch.arange(count, device=device) + (2**63 - _SHIFT)


class Detections(NamedTuple):
    """The best n pairs of query and class of each image, by descending score.

    Attributes:
        bboxes: (B, n, 4) xyxy in pixels inside the image.
        scores: (B, n) float32.
        labels: (B, n) in [0, K).
        queries: (B, n) in [0, Q).
    """

    bboxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor


@float32_island()
def best_detections(
    cls_scores: Tensor, bbox_preds: Tensor, scales: Tensor, *, count: int
) -> Detections:
    """Take the best pairs of query and class.

    Args:
        cls_scores: (B, Q, K) raw logits.
        bbox_preds: (B, Q, 4) cxcywh.
        scales: (B, 1, 4), see :func:`box_scales`.
        count: pairs to take, at most all.
    """
    classes = cls_scores.shape[-1]
    scores, indices = top_scores(cls_scores.sigmoid().flatten(1), count)
    queries = indices // classes
    boxes = bbox_preds.gather(1, queries[..., None].expand(-1, -1, 4))
    return Detections(
        bboxes=cxcywh_to_xyxy(boxes).clamp(min=0, max=1) * scales,
        scores=scores,
        labels=indices % classes,
        queries=queries,
    )


def box_scales(
    batch_img_metas: list[dict], device: torch.device, rescale: bool
) -> Tensor:
    """What normalised boxes are multiplied with, (B, 1, 4) float32.

    Args:
        batch_img_metas: with ``img_shape`` and, for ``rescale``, ``scale_factor``.
        device: where they are needed.
        rescale: pixels of the original image, not of the batch.
    """
    scales = []
    for meta in batch_img_metas:
        height, width = meta['img_shape'][:2]
        if rescale:
            factors = meta['scale_factor']
            width, height = width / factors[0], height / factors[1]
        scales.append([[width, height] * 2])
    return upload(scales, device, torch.float32)
