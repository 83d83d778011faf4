"""How far a file is from the model: raw outputs, and detections found again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

CONFIDENT = 0.3
"""Score from which on a detection of the model has to be found again."""
FEWEST = 10
"""As many of an image are looked for where so few are confident, the best ones."""
SAME_BOX = 0.9
"""IoU from which on two boxes are the same."""
NEAR = 1e-5
"""Scores closer than this may change places."""
RAW = 'boxes', 'logits', 'masks', 'points'
"""What has a column in the table."""


@dataclass(frozen=True)
class Tolerance:
    """What a file may differ by.

    Args:
        boxes: coordinates, as a part of the side; None does not look at raw outputs.
        logits: of classes.
        masks: logits over the largest one.
        points: raw numbers of keypoints likewise; of detections their places, scores
            and covariances.
        kept: part of the detections that has to be found again.
        score: of the detections that are found again.
        in_order: whether detections have to be at the same places, near ties apart.
        mean_ap: difference of the mAP.
        else_do: what helps where it is not enough.
    """

    boxes: float | None
    logits: float | None
    masks: float | None
    points: float | None
    kept: float
    score: float
    in_order: bool
    mean_ap: float
    else_do: str

    def __str__(self) -> str:
        """The bounds of the columns of :func:`table`."""
        raw = {name: getattr(self, name) for name in RAW}
        bounds = [f'{name} {x:g}' for name, x in raw.items() if x is not None]
        bounds += [f'kept {self.kept:.1%} or more', f'score {self.score:g}']
        return ', '.join(bounds)


TO_FLOAT = 'take --precision fp32'
MORE_PICTURES = 'take --precision fp16, or for OpenVINO more pictures by --calibrate'
TOLERANCES = dict(
    fp32=Tolerance(5e-6, 1e-4, 1e-4, 1e-4, 1.0, 2.5e-5, True, 1e-4, 'try another --to'),
    fp16=Tolerance(None, None, None, None, 0.999, 0.3, False, 0.005, TO_FLOAT),
    bf16=Tolerance(None, None, None, None, 0.98, 0.5, False, 0.005, TO_FLOAT),
    int8=Tolerance(None, None, None, None, 0.95, 0.5, False, 0.01, MORE_PICTURES),
)
"""By precision. In low precision a single score may move far, where another token is at
its query's place: of a trained demo 0.15 in fp16 and 0.32 in int8, at the same mAP."""


@dataclass
class Agreement:
    """Differences over all images so far.

    Attributes:
        boxes: largest difference of a coordinate, as a part of the side.
        logits: largest difference.
        masks: largest difference of logits over the largest logit.
        points: largest difference of numbers of keypoints, over the largest.
        by_index: images whose raw outputs were compared.
        images: all images.
        excused: of them, those that differ, and in which two tokens of the memory are
            too close for their order, which says what a query looks at. They are not
            in the other figures.
        wanted: detections of the model that were looked for.
        kept: how many of them the file has: same class, IoU at least 0.9.
        score: largest difference of the scores of those.
        ious: their IoUs.
        misplaced: of float32, detections at another place though no near tie explains
            it.
    """

    boxes: float = 0.0
    logits: float = 0.0
    masks: float = 0.0
    points: float = 0.0
    by_index: int = 0
    images: int = 0
    excused: int = 0
    wanted: int = 0
    kept: int = 0
    score: float = 0.0
    misplaced: int = 0
    ious: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Part of the detections that were found again."""
        return self.kept / self.wanted if self.wanted else 1.0

    def within(self, tolerance: Tolerance) -> bool:
        """Whether nothing differs by more than it may."""
        near = all(
            getattr(tolerance, name) is None
            or getattr(self, name) <= getattr(tolerance, name)
            for name in RAW
        )
        found = self.share >= tolerance.kept and self.score <= tolerance.score
        in_order = not (tolerance.in_order and self.misplaced)
        return near and found and in_order and 4 * self.excused <= 3 * self.images

    def join(self, other: 'Agreement') -> 'Agreement':
        """The differences of both, of other images."""
        joined = {
            name: max(value, getattr(other, name))
            if isinstance(value, float)
            else value + getattr(other, name)
            for name, value in vars(self).items()
        }
        return Agreement(**joined)

    def add_raw(
        self, model: Mapping[str, np.ndarray], file: Mapping[str, np.ndarray]
    ) -> None:
        """Compare the outputs of an image, ``dets``, ``labels`` and those of tasks."""
        self.by_index += 1
        classes = model['labels'].shape[-1]
        differences = dict(
            boxes=np.abs(file['dets'] - model['dets']),
            logits=np.abs(file['labels'][..., :classes] - model['labels']),
        )
        for name, key in dict(masks='masks', points='keypoints').items():
            if key in model:
                differences[name] = apart(file[key], model[key])
        for name, difference in differences.items():
            # Not a number, where a file breaks, is no difference of zero.
            worst = np.nan_to_num(difference, nan=np.inf).max()
            setattr(self, name, max(getattr(self, name), float(worst)))

    def add_detections(self, model, file) -> None:
        """Look for the detections of an image in those of the file.

        Args:
            model: ``boxes`` (n, 4) xyxy, ``scores`` descending, ``labels``.
            file: likewise.
        """
        self.images += 1
        self.misplaced += count_misplaced(model, file)
        count = max(int((model.scores >= CONFIDENT).sum()), min(FEWEST, len(model)))
        ious = overlaps(model.boxes[:count], file.boxes)
        ious[model.labels[:count, None] != file.labels] = 0
        self.wanted += count
        for number, (row, score) in enumerate(zip(ious, model.scores, strict=False)):
            # Other queries may have found the object too, mostly with a low score.
            same = np.flatnonzero(row >= SAME_BOX)
            if len(same):
                place = same[np.argmin(np.abs(file.scores[same] - score))]
                self.kept += 1
                self.ious.append(float(row[place]))
                self.score = max(self.score, float(abs(file.scores[place] - score)))
                ious[:, place] = 0
                if model.keypoints is not None:
                    self._add_points(model.take([number]), file.take([place]))

    def _add_points(self, model, file) -> None:
        """Compare the points of a detection that both have."""
        for name in ('keypoints', 'keypoint_scores', 'keypoint_covariances'):
            ours, theirs = np.nan_to_num((getattr(model, name), getattr(file, name)))
            self.points = max(self.points, float(apart(theirs, ours).max()))


def apart(file: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Differences as parts of the largest number of the model."""
    return np.abs(file - model) / max(float(np.abs(model).max()), 1e-9)


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes xyxy (n, 4) and (m, 4)."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    inside = (high - low).clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (ours, theirs)]
    return inside / (areas[0][:, None] + areas[1] - inside).clip(min=1e-9)


def count_misplaced(model, file) -> int:
    """Detections of the model that the file has at another place, near ties apart."""
    if len(model) != len(file):
        return max(len(model), len(file))
    moved = (model.labels != file.labels) | (
        np.abs(model.boxes - file.boxes).max(-1, initial=0)
        > 1e-3 * _extent(model.boxes)
    )
    gaps = np.abs(np.diff(model.scores, prepend=np.inf, append=-np.inf))
    lonely = np.minimum(gaps[:-1], gaps[1:]) > NEAR
    apart = np.abs(model.scores - file.scores) > NEAR
    return int((moved & lonely | apart).sum())


def _extent(boxes: np.ndarray) -> float:
    return max(float(boxes.max(initial=0)), 1e-6)


def undecided(scores: np.ndarray, count: int) -> np.ndarray:
    """Images in which two tokens are too close for the order of their queries.

    Args:
        scores: (B, S) of all tokens.
        count: tokens that are selected.

    Returns:
        (B,) bool.
    """
    ordered = -np.sort(-scores, axis=1)[:, : count + 1]
    return (-np.diff(ordered, axis=1) < 10 * NEAR).any(axis=1)


def table(rows: Sequence[tuple[str, Agreement]]) -> str:
    """Text for the user, one row for each comparison."""
    head = ('', *RAW, 'kept', 'score', 'mean IoU', 'images')
    lines = [head]
    for name, one in rows:
        raw = [  # no number of what was not compared, or what the model has not
            f'{value:.1e}' if value or (one.by_index and place < 2) else '-'
            for place, value in enumerate(getattr(one, name) for name in RAW)
        ]
        iou = f'{np.mean(one.ious):.4f}' if one.ious else '-'
        kept = f'{one.kept} of {one.wanted}'
        images = str(one.images) + (f', {one.excused} near ties' if one.excused else '')
        lines.append((name, *raw, kept, f'{one.score:.1e}', iou, images))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )
