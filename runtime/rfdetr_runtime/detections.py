"""What is given for a picture, and its forms for other programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .postprocess import Found


@dataclass(frozen=True)
class Detections(Found):
    """The detections of a picture, by descending score.

    Args:
        boxes: (n, 4) float32 xyxy in pixels, inside the picture.
        scores: (n,) float32.
        labels: (n,) int64 in [0, K).
        masks: (n, H, W) bool, or None of a model without them.
        class_names: of the K classes.
        ids: (n,) int64 of the objects over time, -1 before an object is sure; None
            without tracking.
        scheme: of keypoints, as in :class:`Metadata`; empty without them.
    """

    class_names: tuple[str, ...] = ()
    ids: np.ndarray | None = None
    scheme: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[label] for label in self.labels]

    def to_supervision(self) -> Any:
        """``supervision.Detections``; needs that package."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=self.ids,
            data={'class_name': np.array(self.names, dtype=str)},
        )

    def to_list(self) -> list[dict[str, Any]]:
        """Plain Python, as JSON lines hold it; masks as COCO's run lengths."""
        rows = []
        for place, name in enumerate(self.names):
            row = dict(
                box=[round(float(value), 3) for value in self.boxes[place]],
                score=round(float(self.scores[place]), 6),
                label=int(self.labels[place]),
                name=name,
            )
            if self.ids is not None:
                row['id'] = int(self.ids[place])
            if self.masks is not None:
                row['mask'] = encode_mask(self.masks[place])
            if self.keypoints is not None:
                row.update(self.points_of(place))
            rows.append(row)
        return rows

    def points_of(self, place: int) -> dict[str, list]:
        """Points that a detection's class has, in plain Python.

        ``keypoints`` are ``[x, y, score]`` each, and ``keypoint_covariances``
        ``[xx, xy, yy]`` in pixels squared.
        """
        counts, label = self.scheme['counts'], self.labels[place]
        count = counts[label] if label < len(counts) else 0
        rows = np.column_stack((self.keypoints[place], self.keypoint_scores[place]))
        spread = self.keypoint_covariances[place].reshape(-1, 4)[:count, [0, 1, 3]]
        return dict(
            keypoints=rows[:count].astype(float).round(3).tolist(),
            keypoint_covariances=spread.astype(float).round(3).tolist(),
        )


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Compressed run lengths as ``pycocotools`` reads them.

    Columns follow one another; counts of zeros and ones take turns, zeros first; each
    count is written as its difference to the last but one, in groups of five bits, the
    lowest first, with a sixth bit where more follow (COCO's ``maskApi.c``).

    Args:
        mask: (H, W) bool.

    Returns:
        ``size`` [H, W] and ``counts``, a text.
    """
    pixels = np.asarray(mask, bool).ravel(order='F')
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    edges = np.concatenate(([0], changes, [pixels.size]))
    counts = np.diff(edges).tolist()
    if pixels.size and pixels[0]:
        counts.insert(0, 0)
    text = []
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            low = value & 31
            value >>= 5
            more = value != (-1 if low & 16 else 0)
            text.append(chr(48 + low + 32 * more))
    return dict(size=list(mask.shape), counts=''.join(text))
