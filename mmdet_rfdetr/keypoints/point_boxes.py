"""Boxes that carry points, so that whatever moves the boxes moves the points."""

from collections.abc import Sequence
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import (
    HorizontalBoxes,
    register_box,
    register_box_converter,
)
from torch import Tensor

from ..errors import SettingError


@register_box('rfdetr_points')
class PointBoxes(HorizontalBoxes):
    """mmdet's horizontal boxes with the points of their objects.

    All geometric transforms of mmdet and of this package move boxes by these methods.

    Args:
        data: (T, 4) xyxy.
        *args: see ``HorizontalBoxes``.
        points: (T, K, 3) x, y in pixels and visibility; zeros where there is none.
        swap: the point that each becomes in a mirror; None if that is not known.
        **kwargs: see ``HorizontalBoxes``.
    """

    def __init__(
        self,
        data: Any,
        *args,
        points: Tensor | None = None,
        swap: Sequence[int] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(data, *args, **kwargs)
        self.points, self.swap = points, swap

    @staticmethod
    def from_instance_masks(masks: Any) -> HorizontalBoxes:
        """Refuse boxes around masks, as transforms that paste objects make them.

        Raises:
            SettingError: always, since they would be without points.
        """
        raise SettingError(
            'a transform makes new boxes out of masks, which have no points: take it '
            '(CopyPaste, for example) out of the pipeline'
        )

    def _with(self, boxes: HorizontalBoxes, points: Tensor) -> 'PointBoxes':
        return PointBoxes(boxes.tensor, clone=False, points=points, swap=self.swap)

    def __getitem__(self, index: Any) -> 'PointBoxes':
        rows = torch.as_tensor(index) if hasattr(index, '__array__') else index
        points = self.points[rows]
        points = points[None] if points.dim() == 2 else points
        return self._with(super().__getitem__(index), points)

    def clone(self) -> 'PointBoxes':
        """Copy boxes and points."""
        return self._with(super().clone(), self.points.clone())

    def __deepcopy__(self, memo: dict) -> 'PointBoxes':
        return self.clone()

    @classmethod
    def cat(cls, box_list: Sequence['PointBoxes'], dim: int = 0) -> 'PointBoxes':
        """Join the objects of several images, as mosaics do."""
        joined = super().cat(box_list, dim)
        points = torch.cat([boxes.points for boxes in box_list])
        return box_list[0]._with(joined, points)

    def drop_outside(self, img_shape: tuple[int, int]) -> None:
        """Leave out points outside of an image of (height, width)."""
        height, width = img_shape[:2]
        x, y, visible = self.points.unbind(-1)
        kept = (visible > 0) & (x >= 0) & (y >= 0) & (x < width) & (y < height)
        self.points = self.points * kept[..., None]

    def clip_(self, img_shape: tuple[int, int]) -> None:
        """Clip boxes to an image, and drop the points outside."""
        super().clip_(img_shape)
        self.drop_outside(img_shape)

    def flip_(self, img_shape: tuple[int, int], direction: str = 'horizontal') -> None:
        """Mirror boxes and points, and swap the sides.

        As in the official package the points go from pixel to pixel and the boxes from
        edge to edge, one pixel apart.
        """
        super().flip_(img_shape, direction)
        height, width = img_shape[:2]
        across, down = direction != 'vertical', direction != 'horizontal'
        x = [-1, 0, width - 1] if across else [1, 0, 0]
        self._project([x, [0, -1, height - 1] if down else [0, 1, 0]])
        if across != down:  # two mirrors leave the sides where they are
            if self.swap is None:
                raise SettingError(
                    'a transform mirrors images, and it is not known which points are '
                    'a left and a right one: set metainfo=dict(flip_indices=[...]), or '
                    'take it out of the pipeline'
                )
            self.points = self.points[:, self.swap]
        self.drop_outside(img_shape)

    def translate_(self, distances: tuple[float, float]) -> None:
        """Move boxes and points."""
        super().translate_(distances)
        self._project([[1, 0, distances[0]], [0, 1, distances[1]]])

    def rescale_(self, scale_factor: tuple[float, float]) -> None:
        """Scale boxes and points with their image."""
        super().rescale_(scale_factor)
        self._project([[scale_factor[0], 0, 0], [0, scale_factor[1], 0]])

    def rotate_(self, center: tuple[float, float], angle: float) -> None:
        """Rotate boxes and points, clockwise by degrees."""
        super().rotate_(center, angle)
        self._project(cv2.getRotationMatrix2D(center, -angle, 1))

    def project_(self, homography_matrix: Any) -> None:
        """Map boxes and points by a (3, 3) matrix."""
        super().project_(homography_matrix)
        self._project(homography_matrix)

    def _project(self, matrix: Any) -> None:
        """Map points by a (2, 3) or (3, 3) matrix."""
        matrix = torch.as_tensor(matrix, dtype=self.points.dtype)
        moved = F.pad(self.points[..., :2], (0, 1), value=1.0) @ matrix.T
        xy = moved[..., :2] / moved[..., 2:] if len(matrix) == 3 else moved
        self.points = torch.cat((xy, self.points[..., 2:]), dim=-1)


# For overlaps, which mmdet computes of boxes of its own kind.
register_box_converter('rfdetr_points', 'hbox', lambda boxes: boxes)
