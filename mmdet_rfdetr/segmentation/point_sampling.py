"""Masks at points: what the head, the loss and the matching share.

In training no mask is predicted as a picture: a :class:`MaskFeatures` of each
stage holds what it takes to compute one, masks are computed for matched queries
only, and both sides are compared at a few random points. Points are (x, y) in
[0, 1] over the padded input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures.mask import BaseInstanceMasks
from mmdet.utils import InstanceList
from torch import Tensor

from ..errors import SettingError
from ..ops.transfer import upload

PointSource = Callable[[str, tuple[int, ...], torch.device], Tensor]
"""``source(name, shape, device)`` gives uniform numbers in [0, 1) of that shape."""


def random_points(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw from torch's global generator, whatever the points are for."""
    return torch.rand(shape, device=device)


def drawing_order(stages: int) -> list[tuple[int, str]]:
    """Stages in the order in which the official package draws their points.

    Args:
        stages: number of decoder layers plus one, the encoder.

    Returns:
        Pairs of the index of a stage (layers in order, then the encoder) and its
        name: ``final``, then ``aux0`` and so on, then ``enc``.
    """
    auxiliary = [(layer, f'aux{layer}') for layer in range(stages - 2)]
    return [(stages - 2, 'final'), *auxiliary, (stages - 1, 'enc')]


def sample_bilinear(planes: Tensor, points: Tensor) -> Tensor:
    """Read planes between their cells; beyond the border the border goes on.

    Args:
        planes: (n, channels, h, w) float32.
        points: (n, P, 2).

    Returns:
        (n, channels, P).
    """
    grid = 2 * points[:, :, None] - 1
    return F.grid_sample(
        planes, grid, mode='bilinear', padding_mode='border', align_corners=False
    )[..., 0]


class MaskFeatures(NamedTuple):
    """Two factors whose product is the masks of all queries of a stage.

    Attributes:
        spatial_features: (B, D, h, w).
        query_features: (B, N, D).
        bias: (1,).
    """

    spatial_features: Tensor
    query_features: Tensor
    bias: Tensor

    def as_dict(self) -> dict[str, Tensor]:
        """Return the factors by name, float32."""
        return {name: value.float() for name, value in self._asdict().items()}

    def of_all(self) -> Tensor:
        """Mask logits (B, N, h, w) of all queries, float32."""
        bias = self.bias.to(self.query_features.dtype)
        logits = torch.baddbmm(
            bias, self.query_features, self.spatial_features.flatten(2)
        )
        return logits.unflatten(2, self.spatial_features.shape[2:]).float()

    def of_queries(self, image: int, queries: Tensor) -> Tensor:
        """Mask logits (n, h, w) of queries (n,) of an image, float32."""
        spatial = self.spatial_features[image]
        queries = self.query_features[image, queries]
        bias = self.bias.to(queries.dtype)
        logits = torch.addmm(bias, queries, spatial.flatten(1))
        return logits.unflatten(1, spatial.shape[1:]).float()

    def of_pairs(self, queries: Tensor, counts: Sequence[int]) -> Tensor:
        """Mask logits of matched queries.

        Args:
            queries: (pairs,) index of N, image after image.
            counts: pairs of each image.

        Returns:
            (pairs, h, w) float32.
        """
        # One product an image: padding all images to the fullest one would cost
        # several times the memory.
        return torch.cat(
            [
                self.of_queries(image, chosen)
                for image, chosen in enumerate(queries.split(list(counts)))
            ]
        )

    def at_points(self, points: Tensor) -> Tensor:
        """Mask logits of all queries at a few points (P, 2): (B, N, P) float32."""
        spatial = self.spatial_features.float()
        sampled = sample_bilinear(spatial, points.expand(len(spatial), -1, -1))
        return torch.baddbmm(self.bias.float(), self.query_features.float(), sampled)


@dataclass(frozen=True)
class TargetMasks:
    """True masks of the objects of a batch, at the size at which they were loaded.

    A mask need not have the size of the network's input: it is read at relative
    points, so resizing a batch leaves the masks alone.

    Attributes:
        planes: (T, h, w) bool, each mask in the upper left corner.
        sizes: (T, 2) width and height of the mask in its plane.
        spans: (T, 2) part of the width and of the height of the padded input that
            the mask covers; beyond it the mask is empty.
    """

    planes: Tensor
    sizes: Tensor
    spans: Tensor

    @classmethod
    def from_instances(
        cls,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        device: torch.device,
    ) -> 'TargetMasks':
        """Join the masks of all images.

        Args:
            batch_gt_instances: with ``masks``, mmdet's bitmaps or polygons or
                tensors (n, h, w), which cover their image and no padding.
            batch_img_metas: with ``img_shape`` and, if there is padding,
                ``batch_input_shape``.
            device: where the masks are needed.

        Raises:
            SettingError: if an image comes without masks.
        """
        stacks, spans = [], []
        for instances, meta in zip(batch_gt_instances, batch_img_metas, strict=True):
            if 'masks' not in instances:
                raise SettingError(
                    f'image {meta.get("img_path", "without img_path")} has no masks '
                    'to learn from: load them with '
                    "dict(type='RFDETRLoadAnnotations', with_bbox=True, with_mask=True)"
                )
            masks = _to_array(instances.masks)
            image = meta['img_shape'][:2]
            batch = meta.get('batch_input_shape', image)
            stacks.append(masks)
            spans.append((image[1] / batch[1], image[0] / batch[0]))
        counts = [len(masks) for masks in stacks]
        sizes = np.repeat([masks.shape[:0:-1] for masks in stacks], counts, axis=0)
        spans = np.repeat(spans, counts, axis=0)
        return cls(
            planes=upload(_join(stacks), device),
            sizes=upload(sizes, device, torch.float32),
            spans=upload(spans, device, torch.float32),
        )

    def sample(self, points: Tensor, targets: Tensor) -> Tensor:
        """Read masks at points, each at the nearest pixel.

        Args:
            points: (n or 1, P, 2).
            targets: (n,) which masks to read.

        Returns:
            (n, P) float32, 0 or 1.
        """
        sizes = self.sizes[targets][:, None]
        points = points / self.spans[targets][:, None]
        inside = (points <= 1).all(-1)
        # Halves are rounded to even and the border goes on, as in grid_sample.
        pixels = (points * sizes - 0.5).round().clamp(min=0).minimum(sizes - 1)
        x, y = pixels.long().unbind(-1)
        return (self.planes[targets[:, None], y, x] & inside).float()


def _to_array(masks: BaseInstanceMasks | Tensor) -> np.ndarray:
    """(n, h, w) bool."""
    if isinstance(masks, BaseInstanceMasks):
        return masks.to_ndarray().astype(bool, copy=False)
    return masks.cpu().numpy().astype(bool, copy=False)


def _join(stacks: Sequence[np.ndarray]) -> np.ndarray:
    """Masks (n, h, w) of several sizes to (T, h, w), each in the upper left corner."""
    height, width = np.max([masks.shape[1:] for masks in stacks], axis=0)
    planes = np.zeros((sum(map(len, stacks)), height, width), dtype=bool)
    start = 0
    for masks in stacks:
        count, height, width = masks.shape
        planes[start : start + count, :height, :width] = masks
        start += count
    return planes
