"""From the outputs of a file to the detections of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .keypoints import decode_keypoints
from .metadata import Metadata
from .preprocess import taps


@dataclass(frozen=True)
class Found:
    """The detections of an image, by descending score.

    Args:
        boxes: (n, 4) float32 xyxy in pixels, inside the image.
        scores: (n,) float32.
        labels: (n,) int64 in [0, K).
        masks: (n, H, W) bool, or None without the task; see :func:`find_objects`.
        keypoints: (n, K, 2) float32 in pixels, or None without the task.
        keypoint_scores: (n, K) float32, of each point's being in the picture.
        keypoint_covariances: (n, K, 2, 2) float32 in pixels squared.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None
    keypoint_covariances: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: np.ndarray | slice) -> 'Found':
        """Those at some places."""
        arrays = {k: x[index] for k, x in vars(self).items() if hasattr(x, 'shape')}
        return replace(self, **arrays)


def find_objects(
    outputs: Mapping[str, np.ndarray],
    metadata: Metadata,
    sizes: Sequence[tuple[int, int]],
    *,
    max_detections: int | None = None,
    threshold: float | None = None,
    full_masks: bool = True,
) -> list[Found]:
    """Turn what a file gives into detections, for every layout the same.

    Args:
        outputs: of a call, by name.
        metadata: of the file.
        sizes: (height, width) of each image before it was resized.
        max_detections: of an image; None is what the file says.
        threshold: leave out detections whose score is not above it; None keeps all.
        full_masks: masks at the size of the image, cut at zero; otherwise the logits
            (n, h, w), see :func:`resize_masks`.

    Returns:
        One for each image, in order.
    """
    count = max_detections or metadata.max_detections
    decode = dict(
        official=_official,
        detections=_detections,
        mmdeploy=_mmdeploy,
        deepstream=_deepstream,
    )[metadata.layout]
    results = []
    for image, (height, width) in enumerate(sizes):
        of_image = {name: values[image] for name, values in outputs.items()}
        found = decode(of_image, metadata, count).take(slice(count))
        scale = np.array([width, height], np.float32)
        found = replace(found, boxes=found.boxes.clip(0, 1) * np.tile(scale, 2))
        if found.keypoints is not None:
            covariances = found.keypoint_covariances * np.outer(scale, scale)
            points = found.keypoints * scale
            found = replace(found, keypoints=points, keypoint_covariances=covariances)
        if threshold is not None:
            found = found.take(found.scores > threshold)
        if full_masks and found.masks is not None:
            masks = resize_masks(found.masks, (height, width), metadata)
            found = replace(found, masks=masks)
        results.append(found)
    return results


def best_pairs(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest of (entries,) scores; among equal ones the lower first."""
    entries = len(scores)
    candidates = np.arange(entries)
    if count < entries:
        least = np.partition(scores, entries - count)[entries - count]
        candidates = np.flatnonzero(~(scores < least))  # NaN stays
    order = np.argsort(-scores[candidates], kind='stable')
    return candidates[order][:count]


def resize_masks(
    masks: np.ndarray, size: tuple[int, int], metadata: Metadata
) -> np.ndarray:
    """Masks (n, h, w) as a file gives them to (n, height, width) bool."""
    level = 0.5 if metadata.layout == 'mmdeploy' else 0.0
    rows, columns = (
        _sampling(cells, pixels)
        for cells, pixels in zip(masks.shape[1:], size, strict=True)
    )
    resized = np.empty((len(masks), *size), bool)
    for target, mask in zip(resized, masks.astype(np.float32), strict=True):
        np.greater(rows @ mask @ columns.T, level, out=target)
    return resized


def _sampling(cells: int, pixels: int) -> np.ndarray:
    """Bilinear sampling as a matrix (pixels, cells), for maps as small as masks are."""
    low, high, share = taps(cells, pixels)
    matrix = np.zeros((pixels, cells), np.float32)
    places = np.arange(pixels)
    matrix[places, high] = share
    matrix[places, low] += 1 - share
    return matrix


def _official(outputs: dict, metadata: Metadata, count: int) -> Found:
    """``dets`` (Q, 4) cxcywh, ``labels`` (Q, C) logits, ``masks``, ``keypoints``."""
    logits = outputs['labels'].astype(np.float32)
    if metadata.background is not None:
        logits = np.delete(logits, metadata.background, axis=1)
    with np.errstate(over='ignore'):
        scores = 1 / (1 + np.exp(-logits.reshape(-1)))
    best = best_pairs(scores, count)
    queries, labels = np.divmod(best, logits.shape[1])
    boxes = outputs['dets'].astype(np.float32)[queries]
    centres, halves = boxes[:, :2], boxes[:, 2:].clip(min=0) / 2
    corners = np.concatenate((centres - halves, centres + halves), axis=1)
    masks = outputs['masks'][queries] if 'masks' in outputs else None
    found = Found(corners, scores[best], labels, masks)
    if 'keypoints' not in outputs:
        return found
    raw, boxes = outputs['keypoints'][queries], corners.clip(0, 1)
    points = decode_keypoints(raw, boxes, labels, found.scores, metadata.keypoints)
    # The best pairs are those of the classes; fused scores have another order.
    return replace(found, **points).take(best_pairs(points['scores'], count))


def _detections(outputs: dict, metadata: Metadata, count: int) -> Found:
    """``boxes`` (n, 4) xyxy in [0, 1], ``scores``, ``labels`` and those of tasks."""
    return Found(**outputs)


def _mmdeploy(outputs: dict, metadata: Metadata, count: int) -> Found:
    """``dets`` (n, 5) xyxy in pixels of the input and score, ``labels``, ``masks``."""
    boxes = _by_input(outputs['dets'][:, :4], metadata)
    scores = outputs['dets'][:, 4]
    return Found(boxes, scores, outputs['labels'], outputs.get('masks'))


def _deepstream(outputs: dict, metadata: Metadata, count: int) -> Found:
    """``output`` (n, 6): xyxy in pixels of the input, score, class."""
    (rows,) = outputs.values()
    labels = rows[:, 5].astype(np.int64)
    return Found(_by_input(rows[:, :4], metadata), rows[:, 4], labels)


def _by_input(boxes: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Boxes in pixels of the input as parts of its sides."""
    height, width = metadata.input_size
    return boxes / np.array([width, height, width, height], np.float32)
