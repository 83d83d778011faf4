"""Loading an image for a data set that checks what it reads."""

import contextlib
from collections.abc import Callable

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from .findings import BadDataError, Finding
from .images import BadImageError, decode_image

# What mmcv raises for a file that it cannot decode, and hardly for anything else.
_DECODER_ERRORS = (OSError, AssertionError, cv2.error)


def read_file(path: str, backend_args: dict | None = None) -> bytes:
    """Read an image file.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.

    Raises:
        BadImageError: if it is not there, or cannot be read.
    """
    try:
        return fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise BadImageError(Finding.FILE_MISSING, 'does not exist') from error
    except OSError as error:
        raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error


@TRANSFORMS.register_module()
class RFDETRLoadImage(BaseTransform):
    """Load an image from a file, as the official package does, with Pillow.

    ``RFDETRCocoDataset`` puts it in the place of mmcv's ``LoadImageFromFile``. The EXIF
    orientation is followed unless ``height`` and ``width`` of the annotations
    contradict it.

    Reads ``img_path`` and, where there are any, ``height``, ``width`` and
    ``black_like`` (make a black image instead); writes ``img`` (BGR), ``img_shape``
    and ``ori_shape``.

    Args:
        to_float32: whether to convert the pixels.
        backend_args: where files come from, see ``mmengine.fileio``.
    """

    def __init__(
        self, to_float32: bool = False, backend_args: dict | None = None
    ) -> None:
        self.to_float32 = to_float32
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load one image.

        Raises:
            BadImageError: if the file cannot be read; nothing else is raised for
                any content of the file.
        """
        stated = (results.get('height'), results.get('width'))
        if results.pop('black_like', None):
            image = np.zeros((*stated, 3), np.uint8)
        else:
            image = decode_image(
                read_file(results['img_path'], self.backend_args), stated
            )
        if self.to_float32:
            image = image.astype(np.float32)
        return _with_image(results, image)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(to_float32={self.to_float32}, '
            f'backend_args={self.backend_args})'
        )


class GuardedLoader(BaseTransform):
    """A loader of mmcv, of which broken files are told from other errors.

    ``RFDETRCocoDataset`` puts it around a ``LoadImageFromFile`` that stays because of
    its arguments, ``color_type='unchanged'`` say. Pixels are those of the loader. Where
    there is ``black_like``, paths of other images, it makes a black image like the
    first of these that can be read, of ``height`` and ``width``.

    Args:
        loader: the transform.
    """

    def __init__(self, loader: LoadImageFromFile) -> None:
        self.loader = loader

    def transform(self, results: dict) -> dict:
        """Load one image.

        Raises:
            BadImageError: if the file cannot be read.
            BadDataError: if a black image is wanted and no other could be read.
        """
        others = results.pop('black_like', None)
        if others is None:
            return self._load(results)
        for path in others:
            with contextlib.suppress(BadImageError):
                like = self._load(dict(img_path=path))['img']
                shape = (results['height'], results['width'], *like.shape[2:])
                return _with_image(results, np.zeros(shape, like.dtype))
        raise BadDataError(
            f'{results["img_path"]} cannot be read, nor any other image of the data '
            f'set: see whether {self.loader} suits the files.'
        )

    def _load(self, results: dict) -> dict:
        try:
            return self.loader(results)
        except Exception as error:
            # Raises BadImageError if the file itself is at fault.
            decode_image(read_file(results['img_path'], self.loader.backend_args))
            if isinstance(error, _DECODER_ERRORS):
                raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error
            raise

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.loader})'


def guard_loader(transform: Callable) -> Callable:
    """Let a loader of mmcv raise ``BadImageError`` for a file that cannot be read.

    Args:
        transform: any step of a pipeline.

    Returns:
        :class:`RFDETRLoadImage` in the place of a ``LoadImageFromFile`` of colours,
        another one in a :class:`GuardedLoader`, everything else as it is.
    """
    if not isinstance(transform, LoadImageFromFile):
        return transform
    if type(transform) is LoadImageFromFile and transform.color_type == 'color':
        return RFDETRLoadImage(
            to_float32=transform.to_float32, backend_args=transform.backend_args
        )
    return GuardedLoader(transform)


def _with_image(results: dict, image: np.ndarray) -> dict:
    """Add an image and its size to the results."""
    shape = image.shape[:2]
    return dict(results, img=image, img_shape=shape, ori_shape=shape)
