"""Loading an image for a data set that checks what it reads."""

import contextlib
import logging
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from mmengine.logging import print_log

from ..errors import BadDataError, BadImageError, SettingError
from ..faults.findings import Finding
from .arrays import array_to_bgr
from .deep import range_problem
from .images import (
    AS_OFFICIAL,
    ImageSource,
    Reading,
    decode_image,
    require_file,
    to_bgr,
)

# What mmcv raises for a file that it cannot decode, and hardly for anything else.
_DECODER_ERRORS = (OSError, AssertionError, cv2.error)
_BYTES_A_PIXEL = 32  # four channels of 64 bits, without compression


def read_file(
    path: str, backend_args: dict | None = None, reading: Reading = AS_OFFICIAL
) -> bytes:
    """Read an image file.

    Args:
        path: the file.
        backend_args: where it comes from, see ``mmengine.fileio``.
        reading: its bound of pixels, and thereby of bytes.

    Raises:
        BadImageError: if it is not there, cannot be read, or is no ordinary file.
    """
    try:
        backend = fileio.get_file_backend(
            path, backend_args=backend_args, enable_singleton=True
        )
        if isinstance(backend, fileio.LocalBackend):
            require_file(path, _BYTES_A_PIXEL * reading.max_pixels)
        return backend.get(path)
    except FileNotFoundError as error:
        raise BadImageError(Finding.FILE_MISSING, 'does not exist') from error
    except (OSError, KeyError, ValueError) as error:  # a name can be of no backend
        raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to what is said of an image that cannot be read."""
    try:
        yield
    except BadImageError as error:
        raise BadImageError(error.finding, f'{path}: {error}') from error


@TRANSFORMS.register_module()
class RFDETRLoadImage(BaseTransform):
    """Load an image from a file, as the official package does, with Pillow.

    Takes arrays as well, as mmdet's inference functions give them, so that every image
    has the pixels with which training read it. The EXIF orientation is followed unless
    ``height`` and ``width`` of the annotations contradict it.

    Reads ``img``, an array, or ``img_path`` and, where there are any, ``height``,
    ``width`` and ``black_like`` (make a black image instead); writes ``img`` (BGR),
    ``img_path``, ``img_shape`` and ``ori_shape``.

    Args:
        to_float32: whether to convert the pixels.
        backend_args: where files come from, see ``mmengine.fileio``.
        max_pixels: see :class:`~mmdet_rfdetr.data.images.Reading`.
        deep_range: likewise.
    """

    _warned = False

    def __init__(
        self,
        to_float32: bool = False,
        backend_args: dict | None = None,
        max_pixels: int = Reading.max_pixels,
        deep_range: tuple[float, float] | None = None,
    ) -> None:
        self.to_float32 = to_float32
        self.backend_args = backend_args
        self.reading = Reading(max_pixels, deep_range)

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
        image = results.get('img')
        if image is not None:
            image = self._from_array(image)
            results = dict(results, img_path=None)
        else:
            image = self._from_file(results)
        if self.to_float32:
            image = image.astype(np.float32)
        return _with_image(results, image)

    def _from_array(self, image: np.ndarray) -> np.ndarray:
        if not isinstance(image, np.ndarray):
            raise SettingError(f'an image is a path or an array, and got {type(image)}')
        levels = array_to_bgr(image, self.reading.deep_range)
        if image.dtype != np.uint8 and image.dtype.kind in 'uf':
            self._warn('an array', range_problem(image, self.reading.deep_range))
        return levels

    def _from_file(self, results: dict) -> np.ndarray:
        path, stated = (
            results.get('img_path'),
            (results.get('height'), results.get('width')),
        )
        if results.pop('black_like', None):
            return np.zeros((*stated, 3), np.uint8)
        if not isinstance(path, str | Path):
            raise SettingError(
                f'an image is a path or an array, and got {reprlib.repr(path)}'
            )
        with naming(path):
            data = read_file(path, self.backend_args, self.reading)
            source = ImageSource(data, stated, self.reading)
            if source.is_deep and 'height' not in results:  # no data set looked at it
                self._warn(path, source.range_problem())
            return to_bgr(source.decode())

    def _warn(self, what: str | Path, problem: str | None) -> None:
        if problem is not None and not self._warned:
            self._warned = True
            print_log(
                f'{what} with values of {problem} turns nearly black or white: set '
                'deep_range=(darkest, brightest) of RFDETRLoadImage in all pipelines',
                logger='current',
                level=logging.WARNING,
            )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(to_float32={self.to_float32}, '
            f'backend_args={self.backend_args}, {self.reading})'
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
        path = results['img_path']
        with naming(path):
            backend = fileio.get_file_backend(
                path, backend_args=self.loader.backend_args, enable_singleton=True
            )
            if isinstance(backend, fileio.LocalBackend):
                require_file(path)
            try:
                return self.loader(results)
            except Exception as error:
                # Raises BadImageError if the file itself is at fault.
                decode_image(read_file(path, self.loader.backend_args))
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
