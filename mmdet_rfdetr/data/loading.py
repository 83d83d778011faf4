"""Loading an image for a data set that checks what it reads."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from .findings import Finding
from .images import BadImageError, decode_image
from .sizes import multi_scale_sizes


@TRANSFORMS.register_module()
class RFDETRLoadImage(BaseTransform):
    """Load an image from a file, as the official package does, with Pillow.

    ``RFDETRCocoDataset`` puts it in the place of mmcv's ``LoadImageFromFile``; a
    config needs to name it only to decode large JPEGs at a reduced size, which the
    official training does. The EXIF orientation is followed unless ``height`` and
    ``width`` of the annotations contradict it.

    Reads ``img_path`` and, where there are any, ``height``, ``width``,
    ``instances`` and ``unreadable`` (make a black image instead); writes ``img``
    (BGR), ``img_shape``, ``ori_shape`` and, if the size was reduced, ``instances``.

    Args:
        image_size: if given, JPEGs are decoded at 1/2, 1/4 or 1/8 of their size
            where that leaves both sides as long as the largest size of the two
            arguments below, and as ``min_side``. For training without masks only.
        size_divisor: patch size times windows, needed with ``offsets``.
        offsets: those of the ``RFDETRResize`` that follows.
        min_side: what the scale jitter that follows needs, in pixels.
        to_float32: whether to convert the pixels.
        backend_args: where files come from, see ``mmengine.fileio``.
    """

    def __init__(
        self,
        image_size: int | None = None,
        size_divisor: int | None = None,
        offsets: Sequence[int] | None = None,
        min_side: int = 600,
        to_float32: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        self.min_side = None
        if image_size is not None:
            sizes = [image_size]
            if offsets is not None:
                sizes = multi_scale_sizes(image_size, size_divisor, offsets)
            self.min_side = max(min_side, *sizes)
        self.to_float32 = to_float32
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load one image.

        Raises:
            BadImageError: if the file cannot be read; nothing else is raised for
                any content of the file.
        """
        stated = (results.get('height'), results.get('width'))
        if results.get('unreadable'):
            image = np.zeros((*stated, 3), np.uint8)
        else:
            image = decode_image(self._read(results['img_path']), stated, self.min_side)
        if self.min_side is not None and None not in stated:
            _scale_boxes(results, stated, image.shape[:2])
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        try:
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise BadImageError(Finding.FILE_MISSING, 'does not exist') from error
        except OSError as error:
            raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(min_side={self.min_side}, '
            f'to_float32={self.to_float32}, backend_args={self.backend_args})'
        )


def _scale_boxes(
    results: dict, stated: tuple[int, int], decoded: tuple[int, int]
) -> None:
    """Move the boxes to an image that was decoded at a reduced size."""
    if stated == decoded:
        return
    y_scale, x_scale = decoded[0] / stated[0], decoded[1] / stated[1]
    results['instances'] = [
        dict(
            instance,
            bbox=[
                value * scale
                for value, scale in zip(
                    instance['bbox'], (x_scale, y_scale) * 2, strict=True
                )
            ],
        )
        for instance in results.get('instances', [])
    ]
