"""Which class has how many points, and where they lie among the outputs.

Points are counted in two ways: *compact*, those of all classes one after the other, Kt
of them, as tokens in the decoder; and as *slots*, ``S * Kmax`` of them, as many for
each class of the schema as the one with the most points has, as outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from ..errors import SettingError


@dataclass(frozen=True)
class Schema:
    """Number of points of each class.

    Args:
        counts: of each label from 0 on; labels beyond have none.
    """

    counts: tuple[int, ...]

    @classmethod
    def from_setting(cls, counts: Sequence[int], num_classes: int) -> 'Schema':
        """Read ``model.keypoint_head.num_keypoints``.

        Raises:
            SettingError: if they are not counts, or more than there are classes.
        """
        is_list = isinstance(counts, list | tuple)
        whole = is_list and all(type(n) is int and n >= 0 for n in counts)
        if not whole or not any(counts):
            raise SettingError(
                f'model.keypoint_head.num_keypoints={counts!r}: give the number of '
                'points of each class in the order of the labels, [17] for persons'
            )
        if len(counts) > num_classes:
            raise SettingError(
                f'model.keypoint_head.num_keypoints={list(counts)} has more entries '
                f'than model.bbox_head.num_classes={num_classes}: give one for each '
                'class'
            )
        return cls(tuple(counts))

    def check_data(self, counts: Sequence[int] | None) -> None:
        """Refuse a data set whose classes have other numbers of points.

        Args:
            counts: of each label; None if the data set does not say.

        Raises:
            SettingError: if they differ.
        """
        lists = zip_longest(counts or self.counts, self.counts, fillvalue=0)
        if any(theirs != ours for theirs, ours in lists):
            raise SettingError(
                f'the classes of the data set have {list(counts)} points and '
                f'model.keypoint_head.num_keypoints={list(self.counts)}: set it to '
                f'{list(counts)}'
            )

    @property
    def total(self) -> int:
        """Kt, points of all classes."""
        return sum(self.counts)

    @property
    def most(self) -> int:
        """Kmax, points of the class with the most."""
        return max(self.counts)

    @property
    def slots(self) -> int:
        """Points as outputs, those that no class owns included."""
        return len(self.counts) * self.most

    def active(self) -> Tensor:
        """Which slots a class owns: (S, Kmax) bool."""
        return torch.arange(self.most) < torch.tensor(self.counts)[:, None]

    def blocked(self) -> Tensor:
        """Where attention must not look: (1 + Kt, 1 + Kt) bool, the query first.

        The query looks at all points and all look at it; points of a class look at each
        other.
        """
        labels = [label for label, n in enumerate(self.counts) for _ in range(n)]
        of_points = torch.tensor(labels)
        blocked = torch.zeros(1 + self.total, 1 + self.total, dtype=torch.bool)
        blocked[1:, 1:] = of_points[:, None] != of_points
        return blocked
