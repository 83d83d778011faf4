"""Loading a training image with scale jitter, crop, flip and resize in one step."""

import io
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import autocast_box_type
from mmengine import fileio
from PIL import Image

from ..data.images import ImageSource, Reading, naming_faults
from ..data.loading import require_regular
from ..data.sizes import multi_scale_sizes
from ..data.transforms import (
    RFDETRRandomSquareCrop,
    drop_empty_boxes,
    size_by_short_side,
)
from ..errors import SettingError

Region = tuple[float, float, float, float]
"""Left, top, right and bottom within an image, in pixels of the whole file."""


@TRANSFORMS.register_module()
class RFDETRLoadJittered(BaseTransform):
    """Load an image as detection training needs it, reading no more than that.

    Draws what the transforms of the official training draw one after the other: the
    whole image, or a square crop after resizing (``RFDETRResize(sizes=short_sides,
    keep_ratio=True)``, ``RFDETRRandomSquareCrop``), a size and a flip. Then decodes a
    JPEG at the smallest scale that has all the pixels for it, and resizes once, with
    the antialiasing filter of ``RFDETRResize``. So a crop is sharper than when it is
    resized twice, and its edges are on pixels of the decoded image; everything else is
    the same to within a grey level.

    Goes after ``LoadAnnotations`` and takes the places of loading, jitter, flip and
    resize. For training without masks. Reads ``img_path`` and, where there are any,
    ``height``, ``width``, ``gt_bboxes``, ``gt_bboxes_labels`` and ``gt_ignore_flags``;
    writes these, ``img`` (BGR) and the usual facts about it.

    Args:
        image_size: side of the square input, in pixels.
        size_divisor: patch size times windows; needed with ``offsets``.
        offsets: see :func:`~mmdet_rfdetr.data.sizes.multi_scale_sizes`; ``(5,)`` is
            the largest size, from which ``RFDETRBatchMultiScale`` resizes.
        jitter_prob: probability of a crop.
        short_sides: what the shorter side may become before a crop.
        crop_sides: least and greatest side of a crop after that.
        flip_prob: probability of a horizontal flip.
        backend_args: where files come from, see ``mmengine.fileio``.
        max_pixels: see :class:`~mmdet_rfdetr.data.images.Reading`.
        deep_range: likewise.

    Raises:
        SettingError: if ``offsets`` has no ``size_divisor``, or ``crop_sides`` are no
            range.
    """

    def __init__(
        self,
        image_size: int,
        size_divisor: int | None = None,
        offsets: Sequence[int] | None = None,
        jitter_prob: float = 0.5,
        short_sides: Sequence[int] = (400, 500, 600),
        crop_sides: tuple[int, int] = (384, 600),
        flip_prob: float = 0.5,
        backend_args: dict | None = None,
        max_pixels: int = Reading.max_pixels,
        deep_range: tuple[float, float] | None = None,
    ) -> None:
        self.sizes = multi_scale_sizes(image_size, size_divisor, offsets)
        self.crop = RFDETRRandomSquareCrop(*crop_sides)
        self.backend_args = backend_args
        self.reading = Reading(max_pixels, deep_range)
        self.jitter_prob = jitter_prob
        self.short_sides = tuple(short_sides)
        self.flip_prob = flip_prob

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        """Load one image and place its boxes.

        Raises:
            BadImageError: if the file cannot be read.
            SettingError: if there are masks, boxes that are not loaded yet, or an image
                that is.
        """
        _require_boxes(results)
        if results.get('img') is not None:
            raise SettingError(
                'RFDETRLoadJittered loads the image itself: take the loader before it '
                'out of the pipeline, and put steps that change pixels after it; where '
                'they have to come before (Mosaic, MixUp, CopyPaste), put RFDETRResize '
                'in its place'
            )
        stated = (results.get('height'), results.get('width'))
        require_regular(results['img_path'])
        with naming_faults(results['img_path']):
            data = fileio.get(results['img_path'], self.backend_args)
            source = ImageSource(data, stated, self.reading)
            size = self.sizes[np.random.randint(len(self.sizes))]
            region = self.draw_region(source.shape)
            flip = np.random.random() < self.flip_prob
            results['img'], region = read_region(source, region, size, flip)
        left, top, right, bottom = region
        results.update(
            img_shape=(size, size),
            ori_shape=source.shape,
            scale=(size, size),
            scale_factor=(size / (right - left), size / (bottom - top)),
            keep_ratio=False,
            flip=flip,
            flip_direction='horizontal' if flip else None,
        )
        if results.get('gt_bboxes') is not None:
            _place_boxes(results, region)
        return results

    def draw_region(self, shape: tuple[int, int]) -> Region:
        """Draw what of the image is taken.

        Args:
            shape: its height and width.
        """
        height, width = shape
        if np.random.random() >= self.jitter_prob:
            return 0.0, 0.0, float(width), float(height)
        short_side = self.short_sides[np.random.randint(len(self.short_sides))]
        new_height, new_width = size_by_short_side(shape, short_side)
        left, top, side = self.crop.draw((new_height, new_width))
        x_scale, y_scale = width / new_width, height / new_height
        return (
            left * x_scale,
            top * y_scale,
            (left + side) * x_scale,
            (top + side) * y_scale,
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(sizes={self.sizes}, '
            f'jitter_prob={self.jitter_prob}, short_sides={self.short_sides}, '
            f'crop={self.crop}, flip_prob={self.flip_prob}, {self.reading})'
        )


def _require_boxes(results: dict) -> None:
    """Stop if there are annotations that would not follow the crop."""
    if results.get('gt_masks') is not None:
        raise SettingError(
            'RFDETRLoadJittered does not move masks: put RFDETRLoadImage, '
            'RFDETRResize and RandomFlip in its place, as the rfdetr-seg configs do'
        )
    if results.get('instances') and 'gt_bboxes' not in results:
        raise SettingError(
            'RFDETRLoadJittered has to come after LoadAnnotations(with_bbox=True): '
            'boxes that are loaded later do not follow its crop'
        )


def read_region(
    source: ImageSource, region: Region, size: int, flip: bool
) -> tuple[np.ndarray, Region]:
    """Decode a region of an image and resize it to a square.

    Args:
        source: the file.
        region: what to take.
        size: side of the result, in pixels.
        flip: whether to exchange left and right.

    Returns:
        (size, size, 3) uint8 in BGR order, and the region on whole decoded pixels.
    """
    left, top, right, bottom = region
    reduction = largest_reduction((bottom - top, right - left), size)
    if reduction > 1:  # of a JPEG, which is much faster; other formats come whole
        width, height = source.image.size
        source.image.draft('RGB', (width // reduction, height // reduction))
    image = source.decode()
    x_scale, y_scale = image.width / source.shape[1], image.height / source.shape[0]
    # At least one pixel, also of a very narrow image.
    left = min(round(left * x_scale), image.width - 1)
    top = min(round(top * y_scale), image.height - 1)
    right = max(round(right * x_scale), left + 1)
    bottom = max(round(bottom * y_scale), top + 1)
    if (left, top, right, bottom) != (0, 0, image.width, image.height):
        # The same as crop(), which asks for Pillow's own bound of pixels.
        image = image.resize(
            (right - left, bottom - top),
            Image.Resampling.NEAREST,
            box=(left, top, right, bottom),
        )
    taken = left / x_scale, top / y_scale, right / x_scale, bottom / y_scale
    return resize_antialiased(image, size, flip), taken


def largest_reduction(shape: tuple[float, float], min_side: float) -> int:
    """By how much a JPEG may be decoded smaller.

    Args:
        shape: height and width of the part of the image that is needed.
        min_side: how long both sides must stay, in pixels.

    Returns:
        8, 4, 2 or 1, which decoders can do.
    """
    return next((k for k in (8, 4, 2) if min(shape) / k >= min_side), 1)


def resize_antialiased(image: Image.Image, size: int, flip: bool) -> np.ndarray:
    """Resize as Pillow's bilinear filter does, to within a grey level, but faster.

    Args:
        image: in RGB.
        size: new height and width.
        flip: whether to exchange left and right.

    Returns:
        (size, size, 3) uint8 in BGR order, contiguous, as OpenCV needs it to work in
        place.
    """
    # A buffer that torch may write to, as it wants to, without another copy.
    buffer = io.BytesIO(image.tobytes()).getbuffer()
    pixels = torch.frombuffer(buffer, dtype=torch.uint8)
    planes = pixels.view(image.height, image.width, 3).permute(2, 0, 1)[None]
    planes = F.interpolate(planes, size=(size, size), mode='bilinear', antialias=True)
    if flip:
        planes = planes.flip(-1)
    red, green, blue = planes[0].numpy()
    return cv2.merge([blue, green, red])


def _place_boxes(results: dict, region: Region) -> None:
    """Move the boxes to the resized image; leave out those of which nothing is left."""
    boxes = results['gt_bboxes']
    boxes.translate_([-region[0], -region[1]])
    boxes.rescale_(results['scale_factor'])
    boxes.clip_(results['img_shape'])
    if results['flip']:
        boxes.flip_(results['img_shape'])
    drop_empty_boxes(results)
