"""Detected masks at the size of the image, in bounded memory."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

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
_BLOCK = 2**18
"""Pixels that are computed at once, so that they stay in the cache."""
_DOUBT = 10 * 2**-24
"""More than the rounding of a mean of four numbers, relative to the largest."""


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
        (n, height, width) bool, stored column by column as run lengths are, or
        :class:`EncodedMasks` if that would take more than ``DENSE_BYTES``.
    """
    height, width = meta['ori_shape' if rescale else 'img_shape'][:2]
    count = len(queries)
    is_dense = count * height * width <= DENSE_BYTES
    per_chunk = max(1, CHUNK_BYTES // (4 * height * width))
    planes = queries.new_empty(
        (count if is_dense else min(count, per_chunk), width, height), dtype=torch.bool
    )
    masks, codes = planes.transpose(1, 2), []
    for start in range(0, count, per_chunk):
        chosen = queries[start : start + per_chunk]
        first = start if is_dense else 0
        target = masks[first : first + len(chosen)]
        draw_masks(mask_preds.of_queries(image, chosen), target, meta)
        if not is_dense:
            codes += _encode(target)
    return masks if is_dense else EncodedMasks(codes, height, width)


def draw_masks(logits: Tensor, masks: Tensor, meta: dict) -> None:
    """Write where resized logits are positive.

    On a CPU only the pixels near positive logits are computed: a mean of four logits
    with weights of 0 to 1 is not positive if none of them is. Where rounding might
    decide, the mask is computed anew by PyTorch, so that the result is always its.

    Args:
        logits: (n, h, w) float32 of the network's input, with its padding.
        masks: (n, height, width) bool, in which columns are contiguous.
        meta: as in :func:`full_size_masks`.
    """
    size = masks.shape[1:]
    if logits.device.type != 'cpu':
        masks.copy_(_resize(logits[:, None], size, meta) > 0)
        return
    masks.zero_()
    planes, cells = masks.transpose(1, 2).numpy(), logits.detach().numpy()
    rows, columns = (_neighbours(logits, axis, size, meta) for axis in (0, 1))
    is_positive = cells > 0
    spans = is_positive.any(axis=2), is_positive.any(axis=1)
    for index in spans[0].any(axis=1).nonzero()[0]:
        y, x = (
            near.of_span(*span[index].nonzero()[0][[0, -1]])
            for near, span in zip((rows, columns), spans, strict=True)
        )
        if not _draw(cells[index], planes[index], y, x):
            exact = _resize(logits[index][None, None], size, meta)[0] > 0
            masks[index] = exact


def _draw(cells: np.ndarray, plane: np.ndarray, y: '_Near', x: '_Near') -> bool:
    """Draw a mask inside a rectangle; False if rounding might decide a pixel.

    Args:
        cells: (h, w) logits.
        plane: (width, height), changed.
        y: rows of the rectangle.
        x: columns of the rectangle.
    """
    if not len(y.first) or not len(x.first):  # of a smaller image, no pixel sees it
        return True
    top, left = y.first[0], x.first[0]
    cells = cells[top : y.second[-1] + 1, left : x.second[-1] + 1]
    doubt = _DOUBT * np.abs(cells).max()
    if not np.isfinite(doubt):
        return False
    lines = cells[y.first - top] * y.weight[:, None]
    lines += cells[y.second - top] * y.rest[:, None]
    lines = np.ascontiguousarray(lines.T)
    step = max(1, _BLOCK // len(y.first))
    for start in range(0, len(x.first), step):
        part = slice(start, start + step)
        values = lines[x.first[part] - left] * x.weight[part, None]
        values += lines[x.second[part] - left] * x.rest[part, None]
        drawn = values > doubt
        if not np.array_equal(drawn, values >= -doubt):
            return False
        plane[x.start + start : x.start + start + len(drawn)][:, y.slice] = drawn
    return True


class _Near(NamedTuple):
    """Cells that neighbouring pixels along an axis are means of, P pixels.

    Attributes:
        start: the first pixel.
        first: (P,) cell, ascending.
        second: (P,) the next cell; at the border it is the same.
        weight: (P,) of the first cell.
        rest: (P,) weight of the second.
    """

    start: int
    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray
    rest: np.ndarray

    @property
    def slice(self) -> slice:
        """The pixels."""
        return slice(self.start, self.start + len(self.first))

    def of_span(self, low: int, high: int) -> '_Near':
        """The pixels that see a cell of low to high."""
        start = np.searchsorted(self.second, low)
        part = slice(start, np.searchsorted(self.first, high, side='right'))
        return _Near(start, *(values[part] for values in self[1:]))


def _neighbours(logits: Tensor, axis: int, size: tuple[int, int], meta: dict) -> _Near:
    """Ask PyTorch for its weights: resize each cell alone, as 1 among 0."""
    cells = logits.shape[1 + axis]
    if axis == 0:
        alone = torch.eye(cells)[:, None, :, None]
        weights = _resize(alone, (size[0], 1), meta)[:, :, 0]
    else:
        alone = torch.eye(cells)[:, None, None]
        weights = _resize(alone, (1, size[1]), meta)[:, 0]
    weights, pixels = weights.numpy(), np.arange(size[axis])
    first = (weights > 0).argmax(axis=0)
    second = np.minimum(first + 1, cells - 1)
    rest = np.where(second > first, weights[second, pixels], np.float32(0))
    return _Near(0, first, second, weights[first, pixels], rest)


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
    """COCO's run-length codes of masks (n, height, width), best stored by columns."""
    by_columns = masks.permute(1, 2, 0).cpu().numpy().view(np.uint8)
    return rle.encode(np.asfortranarray(by_columns))
