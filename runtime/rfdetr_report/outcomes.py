"""What became of each object and each detection above a score."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask as rle
from pycocotools.coco import COCO

from .evaluation import Evaluation

_OVERLAP = 0.5


@dataclass
class Outcome:
    """What became of one image; entries are those of pycocotools' indices.

    Attributes:
        image: its entry.
        right: pairs of detection and object.
        mixed: pairs that overlap and have different classes.
        false: detections of nothing.
        missed: objects.
    """

    image: dict
    right: list[tuple[dict, dict]] = field(default_factory=list)
    mixed: list[tuple[dict, dict]] = field(default_factory=list)
    false: list[dict] = field(default_factory=list)
    missed: list[dict] = field(default_factory=list)

    @property
    def weight(self) -> float:
        """How bad it is: sure mistakes count for more than doubtful ones."""
        wrong = [found for found, _ in self.mixed] + self.false
        return len(self.missed) + sum(found['score'] for found in wrong)


def find_outcomes(
    truth: COCO, found: COCO, evaluation: Evaluation, threshold: float
) -> list[Outcome]:
    """Say what is right, mixed up, false or missed in each image.

    What pycocotools matched within a class is right. Of the rest, pairs of other
    classes are mixed up, those with the greatest overlap first.

    Args:
        truth: what was to be found.
        found: the detections.
        evaluation: of these.
        threshold: least score of a detection.
    """
    matches, outcomes = evaluation.matches, []
    kept = matches.scores >= threshold
    right, rest = {}, defaultdict(list)
    for key, matched in zip(matches.ids[kept], matches.objects[kept], strict=True):
        detection = found.anns[int(key)]
        if matched:
            right[int(matched)] = detection
        else:
            rest[detection['image_id']].append(detection)
    for place, image in truth.imgs.items():
        outcome = Outcome(image)
        for each in truth.imgToAnns[place]:
            if each['id'] in right:
                outcome.right.append((right[each['id']], each))
            elif not each['iscrowd']:
                outcome.missed.append(each)
        outcome.false = sorted(rest[place], key=lambda each: -each['score'])
        _mix(outcome, evaluation.kind)
        outcomes.append(outcome)
    return outcomes


def _mix(outcome: Outcome, kind: str) -> None:
    """Move pairs of other classes from what is false and missed."""
    if not outcome.false or not outcome.missed:
        return
    key = 'segmentation' if kind == 'segm' else 'bbox'
    sides = [[each[key] for each in side] for side in (outcome.false, outcome.missed)]
    overlaps = rle.iou(*sides, [0] * len(outcome.missed))
    labels = (
        np.array([each['category_id'] for each in side])
        for side in (outcome.false, outcome.missed)
    )
    overlaps[np.equal.outer(*labels)] = 0
    while (best := overlaps.max()) >= _OVERLAP:
        row, column = np.argwhere(overlaps == best)[0]
        outcome.mixed.append((outcome.false[row], outcome.missed[column]))
        overlaps[row], overlaps[:, column] = 0, 0
    taken = {id(each) for pair in outcome.mixed for each in pair}
    outcome.false = [each for each in outcome.false if id(each) not in taken]
    outcome.missed = [each for each in outcome.missed if id(each) not in taken]


def confusion_matrix(outcomes: list[Outcome], classes: int) -> np.ndarray:
    """Count who was taken for whom.

    Args:
        outcomes: of all images.
        classes: how many there are, K.

    Returns:
        (K + 1, K + 1): rows are what it is, the last one nothing, so detections there
        are false; columns are what was found, the last one nothing, so objects there
        are missed.
    """
    counts = np.zeros((classes + 1, classes + 1), int)
    for outcome in outcomes:
        for found, each in outcome.right + outcome.mixed:
            counts[each['category_id'], found['category_id']] += 1
        for found in outcome.false:
            counts[classes, found['category_id']] += 1
        for each in outcome.missed:
            counts[each['category_id'], classes] += 1
    return counts
