"""Pictures of detections with their points, lines and ellipses."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from rfdetr_datasets.points import names_and_lines


@VISUALIZERS.register_module()
class RFDETRKeypointVisualizer(DetLocalVisualizer):
    """``DetLocalVisualizer`` that draws skeletons, and points by their score.

    A point is the brighter the surer it is, from black to its colour in the metainfo
    (``color`` of ``keypoint_info``) or, without one, that of its class.

    Args:
        name: of the instance.
        *args: arguments of ``DetLocalVisualizer``.
        point_score_thr: points and lines of less are not drawn.
        ellipse: probability of the ellipse drawn around each point, such as 0.5; None
            draws none.
        **kwargs: arguments of ``DetLocalVisualizer``.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        *args,
        point_score_thr: float = 0.3,
        ellipse: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(name, *args, **kwargs)
        self.point_score_thr, self.ellipse = point_score_thr, ellipse

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: Sequence[str] | None,
        palette: Sequence[tuple] | None,
    ) -> np.ndarray:
        image = super()._draw_instances(image, instances, classes, palette)
        if 'keypoints' not in instances:
            return image
        image = self.draw_points(image, instances)
        self.set_image(image)
        return image

    def draw_points(
        self, image: np.ndarray, instances: InstanceData, scale: float = 1.0
    ) -> np.ndarray:
        """Draw points, the lines between them and, if asked for, ellipses.

        Args:
            image: (H, W, 3) uint8 RGB.
            instances: with ``keypoints`` (n, K, 2) in pixels, ``labels``, and
                ``keypoint_scores`` or ``keypoints_visible`` (n, K).
            scale: of the image, what points are multiplied by.

        Returns:
            A drawn copy.
        """
        image, meta = np.array(image), self.dataset_meta or {}
        lines = names_and_lines(meta, instances.keypoints.shape[1])[1]
        info = meta.get('keypoint_info') or {}
        shades = {n: info[key].get('color') for n, key in enumerate(sorted(info))}
        seen = instances.get('keypoint_scores', instances.get('keypoints_visible'))
        scores = np.asarray(seen, dtype=float).clip(0, 1)
        radius = max(3, round(max(image.shape[:2]) / 160))
        all_points = np.nan_to_num(np.asarray(instances.keypoints)) * scale
        for index, points in enumerate(all_points):
            colour = self._colour_of(int(instances.labels[index]))
            shown = scores[index] > self.point_score_thr
            places = np.round(points.clip(-1e4, 1e4)).astype(int)
            for start, end in lines:
                if max(start, end) < len(points) and shown[start] and shown[end]:
                    ends = (tuple(places[n].tolist()) for n in (start, end))
                    cv2.line(image, *ends, tuple(colour), max(1, radius // 2))
            for number in np.flatnonzero(shown):
                place, score = tuple(places[number].tolist()), scores[index][number]
                shade = score * np.array(shades.get(number) or colour)
                cv2.circle(image, place, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
                cv2.circle(image, place, radius, tuple(shade), -1, cv2.LINE_AA)
                if self.ellipse and 'keypoint_covariances' in instances:
                    matrix = np.asarray(instances.keypoint_covariances[index][number])
                    matrix = scale**2 * np.nan_to_num(matrix)
                    axes, angle = ellipse_of(matrix, self.ellipse)
                    axes = tuple(np.round(axes.clip(1, 1e4)).astype(int).tolist())
                    cv2.ellipse(image, place, axes, angle, 0, 360, tuple(colour), 1)
        return image

    def _colour_of(self, label: int) -> np.ndarray:
        """(3,) R, G, B of a class: that of the data set, else crimson."""
        palette = (self.dataset_meta or {}).get('palette')
        known = isinstance(palette, list | tuple) and label < len(palette)
        return np.array(palette[label] if known else (220, 20, 60), dtype=float)


def ellipse_of(covariance: np.ndarray, probability: float) -> tuple[np.ndarray, float]:
    """The ellipse that holds a normal distribution with a probability.

    Args:
        covariance: (2, 2) in square pixels.
        probability: between 0 and 1.

    Returns:
        (2,) half axes in pixels, and the angle of the first in degrees.
    """
    values, axes = np.linalg.eigh(np.asarray(covariance, dtype=float))
    reach = np.sqrt(-2 * np.log1p(-probability))
    angle = np.degrees(np.arctan2(axes[1, 0], axes[0, 0]))
    return reach * np.sqrt(values.clip(0)), float(angle)
