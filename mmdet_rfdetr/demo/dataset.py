"""Built-in data: a COCO-format set of drawn pictures, written on first use."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from ..data.coco_dataset import RFDETRCocoDataset
from .drawing import CLASSES, draw_picture

SPLITS = ('train', 'val')
# Raise it whenever the same settings give other pictures.
_VERSION = 1
_STAMP = 'demo.json'

Picture = tuple[str, tuple[int, int], np.ndarray, np.ndarray]
"""File name, (height, width), boxes (T, 4) xywh and labels (T,) of a drawn picture."""


@DATASETS.register_module()
class RFDETRDemoDataset(RFDETRCocoDataset):
    """Pictures of shapes that the package draws, for trying things out.

    The first use writes ``annotations/{train,val}.json`` and the pictures in
    ``train/`` and ``val/`` to ``data_root``; later ones read them.

    Args:
        picture_size: side of the pictures in pixels.
        num_train: number of training pictures.
        num_val: number of validation pictures.
        seed: other seeds give other pictures.
        **kwargs: arguments of :class:`RFDETRCocoDataset`; ``data_root`` is needed.

    Raises:
        FileExistsError: if ``data_root`` holds something else, or demo pictures of
            other settings.
    """

    METAINFO = dict(
        classes=CLASSES,
        palette=[(220, 20, 60), (30, 144, 255), (0, 160, 80), (250, 170, 30)],
    )

    def __init__(
        self,
        *,
        picture_size: int = 128,
        num_train: int = 2000,
        num_val: int = 200,
        seed: int = 0,
        **kwargs,
    ) -> None:
        self.demo = dict(
            version=_VERSION,
            picture_size=picture_size,
            num_train=num_train,
            num_val=num_val,
            seed=seed,
        )
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the pictures where they are missing, and read the annotations."""
        # Where the pictures of one part are, those of the other may be of any number.
        other = {'train': 'num_val', 'val': 'num_train'}
        write_demo(self.data_root, self.demo, other.get(Path(self.ann_file).stem))
        return super().load_data_list()


def write_demo(folder: str, settings: dict, unused: str | None = None) -> None:
    """Draw a data set into ``folder`` unless it is there.

    It is written beside ``folder`` and renamed when complete, so that a killed
    process leaves no half data set; of several processes, one wins.

    Args:
        folder: where to; parents are made.
        settings: arguments of :class:`RFDETRDemoDataset` and the version.
        unused: one of them in which a data set that is there may differ.

    Raises:
        FileExistsError: if ``folder`` holds something else.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        _check(folder, settings, unused)
        return
    total = settings['num_train'] + settings['num_val']
    print_log(f'Drawing {total} demo pictures into {folder}, once.', logger='current')
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    try:
        (scratch / 'annotations').mkdir()
        for split in SPLITS:
            path = scratch / 'annotations' / f'{split}.json'
            write_coco(path, _draw_split(scratch, split, settings), CLASSES)
        (scratch / _STAMP).write_text(json.dumps(settings))
        scratch.chmod(0o755)  # mkdtemp keeps others out
        try:
            os.rename(scratch, folder)
        except OSError:
            _check(folder, settings, unused)  # another process was faster
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check(folder: Path, settings: dict, unused: str | None) -> None:
    """Raise unless ``folder`` holds the demo data of these settings."""
    stamp = folder / _STAMP
    if not stamp.is_file():
        raise FileExistsError(
            f'{folder} exists and holds no demo pictures: set data_root to a folder '
            'that does not exist yet.'
        )
    found = json.loads(stamp.read_text())
    if found | {unused: None} != settings | {unused: None}:
        raise FileExistsError(
            f'{folder} holds demo pictures of {found}, not of {settings}: delete it '
            'or set another data_root.'
        )


def _draw_split(folder: Path, split: str, settings: dict) -> Iterator[Picture]:
    """Write the pictures of one split."""
    side = settings['picture_size']
    (folder / split).mkdir()
    # Full colour resolution: at this size an outline is a few pixels.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    for index in range(settings[f'num_{split}']):
        picture, boxes, labels = draw_picture(
            settings['seed'], SPLITS.index(split), index, side
        )
        path = folder / split / f'{index:06d}.jpg'
        if not cv2.imwrite(str(path), picture, quality):
            raise OSError(f'cannot write {path}: is the disk full?')
        yield path.name, (side, side), boxes, labels


def write_coco(path: Path, pictures: Iterable[Picture], classes: Sequence[str]) -> None:
    """Write an annotation file.

    Args:
        path: the file.
        pictures: file name, (height, width), boxes (T, 4) xywh and labels (T,) of each.
        classes: names of the categories, whose ids are the labels plus one.
    """
    images, annotations = [], []
    for number, (name, (height, width), boxes, labels) in enumerate(pictures, start=1):
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=box,
                    area=round(box[2] * box[3], 2),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    document = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(document))
