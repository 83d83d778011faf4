"""What an exported file says about itself: all that running it needs."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ModelFileError

LAYOUTS = ('official', 'detections', 'mmdeploy', 'deepstream')
PIXELS = ('detections', 'deepstream')
"""Layouts that take pixels of 0 to 255, not normalised ones."""
_TEXTS = 'channel_order', 'resize', 'layout', 'task', 'precision', 'config', 'package'


@dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    Args:
        names: of the K classes, by label.
        input_size: (height, width) of the input in pixels.
        mean: of each channel in 0 to 255, in ``channel_order``.
        std: likewise.
        channel_order: ``'RGB'`` or ``'BGR'``.
        resize: how an image becomes the input. ``'antialias'``, Pillow's bilinear
            filter on whole levels, or ``'sample'``, bilinear without a filter; always
            to the very size, whatever the ratio.
        layout: one of ``LAYOUTS``.
        background: column of ``labels`` that is no class, or None.
        max_detections: pairs of query and class to take at most.
        batch: images of a call, None for any number.
        stride: what the sides of the input divide by.
        task: ``'detect'``, ``'segment'`` or ``'pose'``.
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.
        config: name of the config.
        checkpoint: SHA-256 of the weights' file, empty for random weights.
        package: name and version of what wrote the file.
        notes: the user's own.
        keypoints: of a pose model: ``counts`` of points of the first classes, ``names``
            of the points of a class, ``skeleton`` of pairs of their numbers, and of
            scores ``score_mode`` and ``alpha``; None of others.
    """

    names: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'RGB'
    resize: str = 'antialias'
    layout: str = 'official'
    background: int | None = None
    max_detections: int = 300
    batch: int | None = 1
    stride: int = 32
    task: str = 'detect'
    precision: str = 'fp32'
    config: str = ''
    checkpoint: str = ''
    package: str = ''
    notes: str = ''
    keypoints: dict[str, Any] | None = None

    def to_strings(self) -> dict[str, str]:
        """All as text, as files keep it, with the keys that Ultralytics' readers want.

        Those are ``names``, ``imgsz``, ``stride``, ``task``, ``batch``, ``channels``
        and ``end2end``. Every value but the plain texts is JSON, ``names`` and
        ``imgsz`` are Python's literals as well.
        """
        names = dict(enumerate(self.names))
        return dict(
            **{name: getattr(self, name) for name in _TEXTS},
            names=repr(names),
            imgsz=json.dumps(self.input_size),
            stride=str(self.stride),
            batch=str(self.batch or 1),
            dynamic=json.dumps(self.batch is None),
            channels=str(len(self.mean)),
            end2end=repr(self.layout != 'official'),
            class_names=json.dumps(self.names),
            input_size=json.dumps(self.input_size),
            mean=json.dumps(self.mean),
            std=json.dumps(self.std),
            background=json.dumps(self.background),
            max_detections=str(self.max_detections),
            checkpoint_sha256=self.checkpoint,
            rfdetr_notes=self.notes,
            keypoints=json.dumps(self.keypoints),
        )

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], path: str) -> 'Metadata':
        """Read what :meth:`to_strings` made.

        Args:
            strings: texts by key, maybe with others.
            path: of the file, for the error.

        Raises:
            ModelFileError: if a key is missing or holds no such value.
        """
        try:
            batch = int(strings['batch'])
            return cls(
                names=tuple(json.loads(strings['class_names'])),
                input_size=tuple(json.loads(strings['input_size'])),
                mean=tuple(json.loads(strings['mean'])),
                std=tuple(json.loads(strings['std'])),
                background=json.loads(strings['background']),
                max_detections=int(strings['max_detections']),
                batch=None if json.loads(strings['dynamic']) else batch,
                stride=int(strings['stride']),
                checkpoint=strings['checkpoint_sha256'],
                notes=strings.get('rfdetr_notes', ''),
                keypoints=json.loads(strings.get('keypoints', 'null')),
                **{name: strings[name] for name in _TEXTS},
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ModelFileError(
                f'{path} does not say how to run it ({error!r} in its metadata): '
                'export it with tools/export.py of mmdet_rfdetr'
            ) from error

    def replace(self, **changes) -> 'Metadata':
        """The same with other settings, for example ``resize='sample'``."""
        return dataclasses.replace(self, **changes)

    def summary(self) -> str:
        """One line for a log."""
        height, width = self.input_size
        batch = 'any batch' if self.batch is None else f'batch {self.batch}'
        return (
            f'{self.task}, {len(self.names)} classes, {height} x {width}, {batch}, '
            f'{self.layout}, {self.precision}, {self.config or "no config"}'
        )
