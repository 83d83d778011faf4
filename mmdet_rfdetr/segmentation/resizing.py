"""Masks that follow the resizing of their image."""

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks

from ..data.transforms import RFDETRResize


@TRANSFORMS.register_module(name='RFDETRResize', force=True)
class ResizeWithMasks(RFDETRResize):
    """Resize the image, its boxes and its masks; arguments are the base class's."""

    def _resize_masks(self, results: dict) -> None:
        """Resize the masks to the very size of the image."""
        masks, size = results.get('gt_masks'), results['img_shape']
        if isinstance(masks, BitmapMasks) and len(masks):
            planes = resize_nearest(masks.masks, size)
            results['gt_masks'] = BitmapMasks(planes, *size)
        elif masks is not None:
            results['gt_masks'] = masks.resize(size)


def resize_nearest(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize masks by PyTorch, as the official package does.

    OpenCV rounds otherwise and takes the neighbour of some pixels.

    Args:
        masks: (n, H, W) uint8, at least one.
        size: new height and width.

    Returns:
        (n, h, w) uint8.
    """
    # A flipped array runs backwards, which PyTorch does not take.
    planes = torch.from_numpy(np.ascontiguousarray(masks))[None]
    return F.interpolate(planes, size=size, mode='nearest')[0].numpy()
