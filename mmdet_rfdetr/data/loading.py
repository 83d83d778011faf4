"""Loading an image for a data set that checks what it reads."""

import contextlib
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmengine import fileio

from .findings import BadDataError, Finding
from .images import BadImageError, decode_image
from .sizes import multi_scale_sizes

# What mmcv raises for a file that cannot be read, and hardly for anything else.
_FILE_ERRORS = (OSError, AssertionError, cv2.error)


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
            data = read_file(results['img_path'], self.backend_args)
            image = decode_image(data, stated, self.min_side)
        if self.min_side is not None and None not in stated:
            _scale_boxes(results, stated, image.shape[:2])
        if self.to_float32:
            image = image.astype(np.float32)
        _put_image(results, image)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(min_side={self.min_side}, '
            f'to_float32={self.to_float32}, backend_args={self.backend_args})'
        )


class GuardedLoader(BaseTransform):
    """A loader of mmcv, of which broken files are told from other errors.

    ``RFDETRCocoDataset`` puts it around a ``LoadImageFromFile`` that stays because of
    its arguments, ``color_type='unchanged'`` say. Pixels are those of the loader. Where
    ``unreadable`` is set it makes a black image of ``height`` and ``width``.

    Args:
        loader: the transform.
    """

    def __init__(self, loader: LoadImageFromFile) -> None:
        self.loader = loader
        self._like: np.ndarray | None = None

    def learn_channels(self, paths: Iterable[str]) -> None:
        """See what the images of this loader are like, which a black one has to be.

        Args:
            paths: files of which the first one that can be read is taken.
        """
        for path in paths:
            if self._like is not None:
                return
            with contextlib.suppress(BadImageError):
                self._like = self._load(dict(img_path=path))['img'][:1, :1].copy()

    def transform(self, results: dict) -> dict:
        """Load one image.

        Raises:
            BadImageError: if the file cannot be read.
            BadDataError: if a black image is wanted and no other could be read.
        """
        if not results.get('unreadable'):
            return self._load(results)
        if self._like is None:
            raise BadDataError(
                f'{results["img_path"]} cannot be read, nor any other image of the '
                f'data set: see whether {self.loader} suits the files.'
            )
        shape = (results['height'], results['width'], *self._like.shape[2:])
        _put_image(results, np.zeros(shape, self._like.dtype))
        return results

    def _load(self, results: dict) -> dict:
        try:
            loaded = self.loader(results)
        except _FILE_ERRORS as error:
            raise BadImageError(Finding.FILE_UNREADABLE, str(error)) from error
        except Exception:
            self._require_decodable(results['img_path'])
            raise
        if loaded is None:  # with ignore_empty
            raise BadImageError(Finding.FILE_UNREADABLE, 'cannot be decoded')
        return loaded

    def _require_decodable(self, path: str) -> None:
        """Raise BadImageError if the file itself is at fault."""
        decode_image(read_file(path, self.loader.backend_args))

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


def _put_image(results: dict, image: np.ndarray) -> None:
    results['img'] = image
    results['img_shape'] = results['ori_shape'] = image.shape[:2]


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
