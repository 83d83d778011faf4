"""The values that matching, losses and detections share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..ops.transfer import upload


@dataclass(frozen=True)
class Stages:
    """What a network says about a batch, at all its stages.

    A stage is a decoder layer or, after the layers, the encoder; the only stage of a
    detection is its last layer. The queries of a stage lie group after group.

    Attributes:
        stage_logits: (B, N, K) raw, float32, of each stage.
        stage_boxes: (B, N, 4) cxcywh normalised to the image, float32, likewise.
        num_groups: g, groups that the queries of a stage divide into.
        tasks: by the name of a task head, what it made of each stage.
    """

    stage_logits: Sequence[Tensor]
    stage_boxes: Sequence[Tensor]
    num_groups: int = 1
    tasks: dict[str, Sequence] = field(default_factory=dict)

    @cached_property
    def logits(self) -> Tensor:
        """Logits of all stages along one axis of R rows: (B, R, K)."""
        return _join(self.stage_logits)

    @cached_property
    def boxes(self) -> Tensor:
        """Boxes of all stages along one axis of R rows: (B, R, 4)."""
        return _join(self.stage_boxes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Queries N of each stage; they sum to R."""
        return tuple(boxes.shape[1] for boxes in self.stage_boxes)

    @property
    def last(self) -> int:
        """Index of the last decoder layer."""
        return max(len(self.stage_boxes) - 2, 0)

    @property
    def prefixes(self) -> list[str]:
        """Prefix of each stage in the names of losses; the last layer has none."""
        names = [*(f'd{layer}.' for layer in range(self.last)), '', 'enc_']
        return names[: len(self.stage_boxes)]

    def last_layer(self) -> 'Stages':
        """Leave out all but the last layer, and its queries but the first group.

        What task heads made of the layer stays whole.
        """
        logits, boxes = self.stage_logits[self.last], self.stage_boxes[self.last]
        queries = boxes.shape[1] // self.num_groups
        return Stages(
            stage_logits=[logits[:, :queries]],
            stage_boxes=[boxes[:, :queries]],
            tasks={name: [made[self.last]] for name, made in self.tasks.items()},
        )

    def with_logits(self, stage_logits: Sequence[Tensor]) -> 'Stages':
        """Replace the logits of each stage."""
        return replace(self, stage_logits=stage_logits)

    def with_task(self, name: str, made: Sequence) -> 'Stages':
        """Add what the task head of this name made of each stage."""
        return replace(self, tasks={**self.tasks, name: made})


@torch.enable_grad()  # The matching asks first, and needs no gradient itself.
def _join(stages: Sequence[Tensor]) -> Tensor:
    return torch.cat(tuple(stages), dim=1)


@dataclass(frozen=True)
class Targets:
    """Objects of a batch, one after the other, image by image.

    Attributes:
        labels: (T,) int64 in [0, K).
        boxes: (T, 4) cxcywh normalised to the image.
        counts: number of objects of each image; they sum to T.
        tasks: by the name of a task head, what it is to learn of the objects.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]
    tasks: dict[str, object] = field(default_factory=dict)

    def total(self) -> Tensor:
        """Number of objects, a float32 tensor without axes on their device."""
        return self.boxes.new_full((), sum(self.counts), dtype=torch.float32)

    def of_images(self) -> Tensor:
        """Number of objects of each image: (B,)."""
        return upload(self.counts, self.labels.device)

    def padded_index(self) -> Tensor:
        """Objects of each image (B, largest count); the padding repeats object 0."""
        return upload(self.table(max(self.counts), filler=0), self.labels.device)

    def table(self, size: int, filler: int) -> np.ndarray:
        """Objects of each image, one row each, filled up to (B, size)."""
        table = np.full((len(self.counts), size), filler, dtype=np.int64)
        start = 0
        for row, count in zip(table, self.counts, strict=True):
            row[:count] = range(start, start + count)
            start += count
        return table


@dataclass(frozen=True)
class Matches:
    """Which query predicts which object, for all stages of a network at once.

    A stage is a decoder layer or the encoder. The queries of all stages are
    laid out along one axis of R rows, stage after stage. The pairs are ordered by
    stage, then image and then group.

    Attributes:
        stages: (pairs,) stage of each pair.
        images: (pairs,) image of each pair.
        rows: (pairs,) matched row of R.
        targets: (pairs,) matched object of T.
        stage_sizes: queries N of each stage; they sum to R.
        pair_counts: pairs of each image, for each stage.
        non_finite: whether a cost was not finite; a tensor where the host has not
            read it.
    """

    stages: Tensor
    images: Tensor
    rows: Tensor
    targets: Tensor
    stage_sizes: tuple[int, ...]
    pair_counts: tuple[tuple[int, ...], ...]
    non_finite: Tensor | bool = False

    def sum_by_stage(self, values: Tensor) -> Tensor:
        """Sum the values of the pairs (pairs,) of each stage: (stages,)."""
        sums = values.new_zeros(len(self.stage_sizes))
        return sums.index_add(0, self.stages, self.counted(values))

    def sum_rows(self, values: Tensor) -> Tensor:
        """Sum (B, R, K) over images, queries and classes of each stage: (stages,)."""
        rows = values.sum((0, 2))
        return torch.stack([part.sum() for part in rows.split(self.stage_sizes)])

    def counted(self, values: Tensor) -> Tensor:
        """Values (pairs,) of those pairs that count, all of them here; 0 of others."""
        return values
