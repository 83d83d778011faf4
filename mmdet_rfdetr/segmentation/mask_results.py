"""Detected masks at the size of the image, in bounded memory."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pycocotools.mask as rle
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BitmapMasks
from torch import Tensor

from .point_sampling import MaskFeatures

DENSE_BYTES = 256 * 2**20
"""Masks of an image that would take more than this as booleans come encoded."""
CHUNK_BYTES = 64 * 2**20
"""Float masks that are resized at once; a single mask may take more."""


class EncodedMasks(BitmapMasks):
    """Run-length encoded masks that mmdet's tools take for bitmaps.

    Iterating and mmdet's operations decode; an index gives the code of a mask,
    which is what mmdet's ``CocoMetric`` asks for.

    Args:
        codes: ``dict(size=[height, width], counts=...)`` of each mask.
        height: of the image.
        width: of the image.
    """

    def __init__(self, codes: Sequence[dict], height: int, width: int) -> None:
        self.codes = list(codes)
        self.height = height
        self.width = width

    @property
    def masks(self) -> np.ndarray:
        """All masks decoded, (n, height, width) uint8."""
        decoded = np.empty((len(self), self.height, self.width), dtype=np.uint8)
        for plane, mask in zip(decoded, self, strict=True):
            plane[:] = mask
        return decoded

    def __getitem__(self, index: int | slice | np.ndarray) -> 'dict | EncodedMasks':
        """Code of one mask, or the masks of a slice or an array of indices."""
        indices = np.arange(len(self))[index]
        if indices.ndim == 0:
            return self.codes[indices]
        return EncodedMasks([self.codes[i] for i in indices], self.height, self.width)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode one mask after the other, (height, width) uint8."""
        return map(rle.decode, self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return (
            f'EncodedMasks({len(self)} masks, height={self.height}, width={self.width})'
        )

    @classmethod
    def cat(cls, masks: 'Sequence[EncodedMasks]') -> 'EncodedMasks':
        """Join masks of the same image."""
        codes = [code for part in masks for code in part.codes]
        return cls(codes, masks[0].height, masks[0].width)


def full_size_masks(
    mask_preds: MaskFeatures,
    image: int,
    queries: Tensor,
    meta: dict,
    *,
    rescale: bool,
) -> Tensor | EncodedMasks:
    """Masks of detections, resized as logits and cut at zero.

    Args:
        mask_preds: masks of all queries; only those needed are computed, a few at
            a time.
        image: index of the image in the batch.
        queries: (n,) query of each detection.
        meta: ``img_shape``, ``batch_input_shape`` if it differs, and ``ori_shape``
            for ``rescale``.
        rescale: masks of the original image, otherwise of the network's input
            without its padding.

    Returns:
        (n, height, width) bool, or :class:`EncodedMasks` if that would take more
        than ``DENSE_BYTES``.
    """
    height, width = meta['ori_shape' if rescale else 'img_shape'][:2]
    count = len(queries)
    per_chunk = max(1, CHUNK_BYTES // (4 * height * width))
    chunks = (
        _resize(mask_preds.of_queries(image, part)[:, None], (height, width), meta) > 0
        for part in queries.split(per_chunk)
    )
    if count * height * width > DENSE_BYTES:
        codes = [code for chunk in chunks for code in _encode(chunk)]
        return EncodedMasks(codes, height, width)
    masks = queries.new_empty((count, height, width), dtype=torch.bool)
    for target, chunk in zip(masks.split(per_chunk), chunks, strict=True):
        target.copy_(chunk)
    return masks


def _resize(logits: Tensor, size: tuple[int, int], meta: dict) -> Tensor:
    """Logits (n, 1, h, w) of a padded input to (n, height, width) of its image."""
    image = meta['img_shape'][:2]
    batch = meta.get('batch_input_shape', image)
    if tuple(image) == tuple(batch):
        resized = F.interpolate(logits, size=size, mode='bilinear')
        return resized[:, 0]
    # Resize the padding as well and cut it off. The exact factor matters, and the
    # result must not come out a pixel short by rounding.
    factors = [
        math.nextafter(target * whole / (part * cells), math.inf)
        for target, whole, part, cells in zip(
            size, batch, image, logits.shape[2:], strict=True
        )
    ]
    resized = F.interpolate(logits, scale_factor=factors, mode='bilinear')
    return resized[:, 0, : size[0], : size[1]]


def _encode(masks: Tensor) -> list[dict]:
    """COCO's run-length codes of masks (n, height, width)."""
    columns_first = masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8, order='F')
    return rle.encode(columns_first)
