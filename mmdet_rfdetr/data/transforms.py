"""Resizing and cropping as the official package does it.

What mmcv and mmdet compute alike (loading, flipping, packing) is left to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.image import imresize
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type

from ..errors import SettingError
from .sizes import multi_scale_sizes

_LONGEST = 20  # times the shorter side


@TRANSFORMS.register_module()
class RFDETRResize(Resize):
    """Resize the image and its annotations to a size the network can take.

    The size is ``image_size`` or, with ``offsets``, one of the multi-scale sizes
    around it, drawn for each image. ``sizes`` gives the sizes to draw from
    directly. Reads and writes the same keys as mmdet's ``Resize``.

    Args:
        image_size: side of the square input, or shorter side with ``keep_ratio``.
        size_divisor: patch size times windows; needed with ``offsets``.
        offsets: see :func:`~mmdet_rfdetr.data.sizes.multi_scale_sizes`. ``(5,)``
            is the largest size, from which ``RFDETRBatchMultiScale`` resizes.
        sizes: sizes to draw from, instead of the three above; a pair is a height
            and a width.
        keep_ratio: whether to keep the aspect ratio: the size is then that of the
            shorter side, and the preprocessor pads what does not divide.
        max_long_side: with ``keep_ratio``, the most pixels of the longer side; the
            shorter one gives way. None is 20 times the size, so that a line of pixels
            does not fill the memory.
        antialias: True filters when it shrinks and rounds to whole grey levels,
            as the official training and evaluation do (Pillow on uint8). Levels that
            transforms before it made of other types are rounded and clipped. False
            samples without a filter in floating point, as the official
            ``predict`` does.

    Raises:
        SettingError: if the size is given in two ways or in none, or an argument
            needs another one.
    """

    def __init__(
        self,
        image_size: int | None = None,
        size_divisor: int | None = None,
        offsets: Sequence[int] | None = None,
        sizes: Sequence[int | tuple[int, int]] | None = None,
        keep_ratio: bool = False,
        max_long_side: int | None = None,
        antialias: bool = True,
    ) -> None:
        if (image_size is None) == (sizes is None) or (sizes and offsets):
            raise SettingError(
                'RFDETRResize takes either image_size, maybe with offsets, or sizes, '
                f'and got {image_size=}, {offsets=}, {sizes=}'
            )
        self.sizes = sizes or multi_scale_sizes(image_size, size_divisor, offsets)
        are_sides = all(isinstance(size, int) for size in self.sizes)
        is_bound = max_long_side is None or (keep_ratio and max_long_side > 0)
        if not is_bound or (keep_ratio and not are_sides):
            raise SettingError(
                'RFDETRResize: with keep_ratio=True a size is that of the shorter '
                'side, and max_long_side, a number of pixels above 0, bounds the other '
                f'one; got {keep_ratio=}, {max_long_side=} and the sizes {self.sizes}'
            )
        self.max_long_side = max_long_side
        self.antialias = antialias
        # The scale is set for each image; mmcv's class insists on having one.
        super().__init__(scale=self.sizes[0], keep_ratio=keep_ratio)

    def transform(self, results: dict) -> dict:
        """Resize; arguments and result are mmdet's."""
        size = self.sizes[np.random.randint(len(self.sizes))]
        if self.keep_ratio:
            shape = results['img'].shape[:2]
            longest = self.max_long_side or _LONGEST * size
            height, width = size_by_short_side(shape, size, longest)
        else:
            height, width = (size, size) if isinstance(size, int) else size
        self.scale = (width, height)
        return super().transform(results)

    def _resize_img(self, results: dict) -> None:
        """Resize the image to ``results['scale']``, (width, height)."""
        image = results['img']
        old_height, old_width = image.shape[:2]
        width, height = results['scale']
        resize = resize_filtered if self.antialias else resize_sampled
        results['img'] = resize(image, (height, width))
        results['img_shape'] = (height, width)
        results['scale_factor'] = (width / old_width, height / old_height)
        results['keep_ratio'] = self.keep_ratio


@TRANSFORMS.register_module()
@dataclass(eq=False)
class RFDETRRandomSquareCrop(BaseTransform):
    """Crop a square of random side at a random place.

    The side is uniform in [min(``min_side``, m), m] with m the smallest of
    ``max_side``, height and width. Boxes are clipped to the crop; an object is
    dropped only if nothing of its box is left.

    Reads ``img`` and, where there are annotations, ``gt_bboxes``,
    ``gt_bboxes_labels``, ``gt_ignore_flags`` and ``gt_masks``; writes the same and
    ``img_shape``.

    Args:
        min_side: smallest side where the image allows a larger one, in pixels.
        max_side: largest side.
    """

    min_side: int = 384
    max_side: int = 600

    def __post_init__(self) -> None:
        if not 0 < self.min_side <= self.max_side:
            raise SettingError(
                f'a random square crop needs 0 < min_side <= max_side, and got {self}'
            )

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Crop the image and its annotations."""
        left, top, side = self.draw(results['img'].shape[:2])
        results['img'] = results['img'][top : top + side, left : left + side]
        results['img_shape'] = (side, side)
        if results.get('gt_masks') is not None:
            corners = np.array([left, top, left + side, top + side])
            results['gt_masks'] = results['gt_masks'].crop(corners)
        if results.get('gt_bboxes') is not None:
            results['gt_bboxes'].translate_([-left, -top])
            results['gt_bboxes'].clip_((side, side))
            drop_empty_boxes(results)
        return results

    def draw(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Draw a square within an image of (height, width): left, top and side."""
        height, width = shape
        largest = min(self.max_side, height, width)
        side = np.random.randint(min(self.min_side, largest), largest + 1)
        top = np.random.randint(height - side + 1)
        left = np.random.randint(width - side + 1)
        return left, top, side


def drop_empty_boxes(results: dict) -> None:
    """Leave out objects of whose boxes nothing is left.

    Args:
        results: of a pipeline, with mmdet's ``gt_bboxes`` and what belongs to them.
    """
    boxes = results['gt_bboxes']
    kept = ((boxes.widths > 0) & (boxes.heights > 0)).numpy()
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
        if results.get(key) is not None:
            results[key] = results[key][kept]


def size_by_short_side(
    size: tuple[int, int], short_side: int, max_long_side: int | None = None
) -> tuple[int, int]:
    """Compute the size that makes the shorter side ``short_side`` pixels long.

    Args:
        size: height and width.
        short_side: wanted length of the shorter side.
        max_long_side: if the longer side would become longer than this, the
            shorter one is made as short as this needs (official rounding: the
            longer side may then miss the limit by some pixels).

    Returns:
        Height and width.
    """
    short, long = min(size), max(size)
    if max_long_side is not None and long / short * short_side > max_long_side:
        short_side = round(max_long_side * short / long)
    long_side = round(short_side * long / short) if short_side else max_long_side
    short_side = max(1, short_side)
    return (short_side, long_side) if size[0] == short else (long_side, short_side)


def resize_filtered(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize with Pillow's bilinear filter, which widens as the image shrinks.

    Args:
        image: (H, W, channels) or (H, W), levels of 0 to 255 of any type.
        size: new height and width.

    Returns:
        (h, w, channels) or (h, w), uint8.
    """
    if image.dtype != np.uint8:
        image = np.nan_to_num(np.round(image)).clip(0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 3:
        return imresize(image, size[::-1], interpolation='bilinear', backend='pillow')
    # Pillow would take two or four channels for colours and their opacity.
    channels = np.ascontiguousarray(image.transpose(2, 0, 1))
    return np.stack([resize_filtered(channel, size) for channel in channels], axis=2)


def resize_sampled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize by bilinear sampling at pixel centres, without a filter.

    Args:
        image: (H, W, channels) or (H, W), of any type.
        size: new height and width.

    Returns:
        (h, w, channels) float32.
    """
    # A flipped array runs backwards, which PyTorch does not take.
    image = np.atleast_3d(image).astype(np.float32, order='C')
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    planes = F.interpolate(planes, size=size, mode='bilinear', align_corners=False)
    return planes[0].permute(1, 2, 0).numpy()
