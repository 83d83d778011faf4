"""Detecting in pictures of any number: reading, computing and using results overlap."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np

from .backends import open_model
from .background import ahead
from .detections import Detections
from .errors import SourceError
from .pictures import Picture, as_colours, read_picture
from .postprocess import Found, find_objects
from .preprocess import prepare
from .tiles import grid, join_views

RESIZES = dict(evaluation=None, official='sample')
"""How pictures are resized: as evaluation does it, or as the official ``predict``."""


class Model(Protocol):
    """What a :class:`Detector` needs: a file, or a checkpoint of another package.

    Attributes:
        names: of the classes, by label.
        scheme: of keypoints, as in ``Metadata``; empty without them.
    """

    names: tuple[str, ...]
    scheme: Mapping

    def prepare(self, image: np.ndarray) -> object:
        """Make the input of one image (H, W, 3) uint8 BGR; called in a thread."""

    def detect(
        self,
        inputs: list,
        sizes: list[tuple[int, int]],
        threshold: float,
        most: int | None,
    ) -> list[Found]:
        """Detect in a batch of what :meth:`prepare` made of images of these sizes."""


class ExportedModel:
    """An exported file in its runtime.

    Args:
        path: of the file.
        device: see :func:`~rfdetr_runtime.backends.open_model`.
        resize: ``'evaluation'``, which is what the file says, or ``'official'``.
        shape: (height, width) of the input, which the file has to have.

    Raises:
        ModelFileError: if it cannot be opened.
        SourceError: if it has another shape.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = 'cpu',
        resize: str = 'evaluation',
        shape: Sequence[int] | None = None,
    ) -> None:
        self.backend = open_model(path, device=device)
        self.metadata = self.backend.metadata
        self.names = self.metadata.names
        self.scheme = self.metadata.keypoints or {}
        self._resize = RESIZES[resize]
        if shape is not None and tuple(shape) != tuple(self.metadata.input_size):
            raise SourceError(
                f'{path} takes {tuple(self.metadata.input_size)}, not {tuple(shape)}: '
                'the shape of an exported file is fixed, export one with --shape'
            )

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Resized and, where the file wants it, normalised."""
        return prepare([image], self.metadata, self._resize)

    def detect(self, inputs, sizes, threshold, most) -> list[Found]:
        """Run the file, and read its outputs."""
        outputs = self.backend(np.concatenate(inputs))
        kept = dict(threshold=threshold or None, max_detections=most)
        return find_objects(outputs, self.metadata, sizes, **kept)


@dataclass
class _Views:
    """A picture, its tiles and what was found in them so far."""

    picture: Picture
    regions: np.ndarray
    found: list[Found]


class Detector:
    """Detects in arrays, files and endless sources.

    ``Detector('rfdetr_nano.onnx')('street.jpg')`` gives :class:`Detections`, a list of
    images a list of them.

    Args:
        model: path of an exported file, or a :class:`Model`.
        threshold: only detections with a score above it; all with 0.
        classes: names or numbers of the classes to keep; None keeps all.
        max_dets: at most so many of a picture, of a tile before they are joined.
        batch: pictures, or tiles, that are computed at once.
        tile: side of the tiles in pixels; None is the whole picture.
        overlap: part of a tile's side that neighbours share at least.
        whole: look at the whole picture besides.
        **options: of :class:`ExportedModel`, for a path.

    Raises:
        SourceError: if a class is unknown or a number makes no sense.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        threshold: float = 0.5,
        classes: Sequence[str | int] | None = None,
        max_dets: int | None = None,
        batch: int = 1,
        tile: int | None = None,
        overlap: float = 0.2,
        whole: bool = False,
        **options,
    ) -> None:
        is_path = isinstance(model, str | Path)
        self.model = ExportedModel(model, **options) if is_path else model
        self.names = tuple(self.model.names)
        at_least_one = all(n is None or n >= 1 for n in (max_dets, batch, tile))
        if not at_least_one or not 0 <= overlap < 1 or not 0 <= threshold <= 1:
            raise SourceError(
                f'{max_dets=}, {batch=} and {tile=} have to be 1 or more, {overlap=} '
                f'from 0 to below 1, {threshold=} from 0 to 1'
            )
        self.threshold, self.max_dets, self.batch = threshold, max_dets, batch
        self.tile, self.overlap, self.whole = tile, overlap, whole
        self.labels = None
        if classes is not None:
            self.labels = [self._label(each) for each in classes]

    def _label(self, name: str | int) -> int:
        """The label of a class that a user named."""
        if name in self.names:
            return self.names.index(name)
        if str(name).isdecimal() and int(name) < len(self.names):
            return int(name)
        raise SourceError(
            f'there is no class {name!r}: the model has '
            f'{", ".join(self.names[:8])}{", ..." if len(self.names) > 8 else ""}'
        )

    def __call__(
        self, images: str | Path | np.ndarray | Iterable[str | Path | np.ndarray]
    ) -> Detections | list[Detections]:
        """Detect.

        Args:
            images: a path or an array BGR, or several.

        Returns:
            The detections of each, in order; of one image those alone.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self([images])[0]
        pictures = (
            Picture(
                as_colours(image)
                if isinstance(image, np.ndarray)
                else read_picture(image),
                '',
            )
            for image in images
        )
        return [found for _, found in self.stream(pictures)]

    def stream(
        self, pictures: Iterable[Picture], stop: Event | None = None
    ) -> Iterator[tuple[Picture, Detections | None]]:
        """Detect in one picture after the other, in bounded memory.

        Pictures are read and prepared in a thread, some ahead of those that are
        computed.

        Args:
            pictures: ``rfdetr_predict.Sources``, or others.
            stop: ends it when it is set, after what is read.

        Yields:
            Each picture and its detections; None of one that could not be read.
        """
        waiting: list[_Views] = []
        batch: list[tuple] = []
        with ahead(self._inputs(pictures), 2 * self.batch, stop) as inputs:
            for views, image, size in inputs:
                if not (waiting and waiting[-1] is views):
                    waiting.append(views)
                if size is not None:
                    batch.append((views, image, size))
                if len(batch) == self.batch:
                    self._detect(batch)
                    batch = []
                while waiting and len(waiting[0].found) == len(waiting[0].regions):
                    yield self._finished(waiting.pop(0))
            self._detect(batch)
            for views in waiting:
                if len(views.found) == len(views.regions):
                    yield self._finished(views)

    def _inputs(self, pictures: Iterable[Picture]) -> Iterator[tuple]:
        """Each tile of each picture: what it belongs to, its input and its size."""
        for picture in pictures:
            if picture.image is None:
                yield _Views(picture, np.empty((0, 4), int), []), None, None
                continue
            height, width = picture.image.shape[:2]
            side = self.tile or max(height, width)
            regions = grid((height, width), side, self.overlap)
            if self.whole and len(regions) > 1:
                regions = np.concatenate((regions, [[0, 0, width, height]]))
            views = _Views(picture, regions, [])
            for x, y, right, bottom in regions:
                part = picture.image[y:bottom, x:right]
                yield views, self.model.prepare(part), part.shape[:2]

    def _detect(self, batch: list[tuple]) -> None:
        """Run the model, and hand out what it found."""
        if not batch:
            return
        owners, inputs, sizes = map(list, zip(*batch, strict=True))
        most = self.max_dets if self.labels is None else None
        found = self.model.detect(inputs, sizes, self.threshold, most)
        for views, each in zip(owners, found, strict=True):
            views.found.append(each)

    def _finished(self, views: _Views) -> tuple[Picture, Detections | None]:
        """Join the tiles of a picture and choose what was asked for."""
        picture = views.picture
        if picture.image is None:
            return picture, None
        size = picture.image.shape[:2]
        found = views.found[0]
        if len(views.found) > 1:
            parts = [
                moved(each, region, size)
                for each, region in zip(views.found, views.regions, strict=True)
            ]
            found = join_views(parts, views.regions, size)
            if self.threshold:  # joining takes from the scores of parts
                found = found.take(~(found.scores <= self.threshold))
        if self.labels is not None:
            found = found.take(np.isin(found.labels, self.labels))
        if self.max_dets is not None:
            found = found.take(slice(self.max_dets))
        scheme = getattr(self.model, 'scheme', {})
        found = Detections(**vars(found), class_names=self.names, scheme=scheme)
        return picture, found


def moved(found: Found, region: np.ndarray, size: tuple[int, int]) -> Found:
    """Detections of a tile as those of the picture.

    Args:
        found: boxes and masks in pixels of the tile.
        region: (4,) xyxy, where the tile lies.
        size: (height, width) of the picture.
    """
    x, y, right, bottom = region
    masks = None
    if found.masks is not None:
        masks = np.zeros((len(found), *size), bool)
        masks[:, y:bottom, x:right] = found.masks
    offset = np.array([x, y], np.float32)
    points = None if found.keypoints is None else found.keypoints + offset
    boxes = found.boxes + np.tile(offset, 2)
    return replace(found, boxes=boxes, masks=masks, keypoints=points)
