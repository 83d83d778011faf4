"""Boxes that carry points, so that whatever moves the boxes moves the points."""

from collections.abc import Sequence
from typing import Any

import cv2
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import Tensor

from ..errors import SettingError


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
        x, y, visible = self.points.unbind(-1)
        if direction != 'vertical':
            x = width - 1 - x
        if direction != 'horizontal':
            y = height - 1 - y
        points = torch.stack((x, y, visible), dim=-1)
        if direction != 'diagonal':  # two mirrors leave the sides where they are
            if self.swap is None:
                raise SettingError(
                    'a transform mirrors images, and it is not known which points are '
                    'a left and a right one: set metainfo=dict(flip_indices=[...])'
                )
            points = points[:, self.swap]
        self.points = points
        self.drop_outside(img_shape)

    def translate_(self, distances: tuple[float, float]) -> None:
        """Move boxes and points."""
        super().translate_(distances)
        self._add_and_scale(distances, (1, 1))

    def rescale_(self, scale_factor: tuple[float, float]) -> None:
        """Scale boxes and points with their image."""
        super().rescale_(scale_factor)
        self._add_and_scale((0, 0), scale_factor)

    def _add_and_scale(self, added: Sequence[float], scale: Sequence[float]) -> None:
        factors = self.points.new_tensor([*scale, 1])
        self.points = self.points * factors + self.points.new_tensor([*added, 0])

    def rotate_(self, center: tuple[float, float], angle: float) -> None:
        """Rotate boxes and points, clockwise by degrees."""
        super().rotate_(center, angle)
        self._project(torch.as_tensor(cv2.getRotationMatrix2D(center, -angle, 1)))

    def project_(self, homography_matrix: Any) -> None:
        """Map boxes and points by a (3, 3) matrix."""
        super().project_(homography_matrix)
        self._project(torch.as_tensor(homography_matrix))

    def _project(self, matrix: Tensor) -> None:
        """Map points by a (2, 3) or (3, 3) matrix."""
        xy1 = torch.cat(
            (
                self.points[..., :2],
                self.points.new_ones(1, 1, 1).expand(*self.points.shape[:2], 1),
            ),
            dim=-1,
        )
        moved = xy1 @ matrix.to(xy1).T
        xy = moved[..., :2] / moved[..., 2:] if len(matrix) == 3 else moved
        self.points = torch.cat((xy, self.points[..., 2:]), dim=-1)
