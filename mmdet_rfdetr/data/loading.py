"""Loading an image with the pixels that the official package has."""

import reprlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from ..errors import BadImageError, SettingError
from .images import Reading, decode_image, naming_faults
from .levels import array_to_bgr


@TRANSFORMS.register_module()
@dataclass(eq=False)
class RFDETRLoadImage(BaseTransform):
    """Load an image from a file, as the official package does, with Pillow.

    Takes arrays as well, as mmdet's inference functions give them, so that every image
    has the pixels with which training read it. The EXIF orientation is followed unless
    ``height`` and ``width`` of the annotations contradict it.

    Reads ``img``, an array, or ``img_path`` and, where there are any, ``height`` and
    ``width``; writes ``img`` (BGR), ``img_path``, ``img_shape`` and ``ori_shape``.

    Args:
        to_float32: whether to convert the pixels.
        backend_args: where files come from, see ``mmengine.fileio``.
        max_pixels: see :class:`~mmdet_rfdetr.data.images.Reading`.
        deep_range: likewise.
    """

    to_float32: bool = False
    backend_args: dict | None = None
    max_pixels: int = Reading.max_pixels
    deep_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.reading = Reading(self.max_pixels, self.deep_range)

    def transform(self, results: dict | str | Path | np.ndarray) -> dict:
        """Load one image.

        Args:
            results: of a pipeline; or a path or an array by itself.

        Raises:
            BadImageError: if the file cannot be read; nothing else is raised for
                any content of the file.
            SettingError: if there is neither a path nor an array of an image.
        """
        if not isinstance(results, dict):
            key = 'img' if isinstance(results, np.ndarray) else 'img_path'
            results = {key: results}
        image, path = results.get('img'), results.get('img_path')
        if isinstance(image, np.ndarray):
            image = array_to_bgr(image, self.reading.deep_range)
            results = dict(results, img_path=None)
        elif image is None and isinstance(path, str | Path):
            stated = results.get('height'), results.get('width')
            require_regular(path)
            with naming_faults(path):
                data = fileio.get(path, self.backend_args)
                image = decode_image(data, stated, self.reading)
        else:
            given = path if image is None else image
            raise SettingError(
                f'an image is a path or an array, and got {reprlib.repr(given)}'
            )
        if self.to_float32:
            image = image.astype(np.float32)
        shape = image.shape[:2]
        return dict(results, img=image, img_shape=shape, ori_shape=shape)


def require_regular(path: str | Path) -> None:
    """Look at what a path names before it is read: a pipe would wait for ever.

    Raises:
        BadImageError: if it is a folder, a device or a pipe.
    """
    with naming_faults(path):
        if Path(path).exists() and not Path(path).is_file():
            raise BadImageError('special', 'is a folder, device or pipe')
