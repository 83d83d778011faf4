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
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..data.coco_dataset import RFDETRCocoDataset
from . import figures
from .drawing import CLASSES, draw_picture

SPLITS = ('train', 'val')
# Raise it whenever the same settings give other pictures.
_VERSION = 1
_STAMP = 'demo.json'
# Where the pictures of one part are, those of the other may be of any number.
_OTHER = {'train': 'num_val', 'val': 'num_train'}

Picture = tuple[str, tuple[int, int], np.ndarray, np.ndarray]
"""File name, (height, width), boxes (T, 4) xywh and labels (T,) of a drawn picture;
of figures their points (T, K, 3) as well, as in COCO's files."""


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
        write_demo(self.data_root, self.demo, _OTHER.get(Path(self.ann_file).stem))
        return super().load_data_list()


@DATASETS.register_module()
def RFDETRDemoFigures(
    *,
    kind: str = 'RFDETRCocoDataset',
    data_root: str,
    ann_file: str,
    picture_size: int = 128,
    num_train: int = 2000,
    num_val: int = 200,
    seed: int = 0,
    **kwargs,
) -> BaseDataset:
    """Pictures of stick figures with five points each, that the package draws.

    They are written to ``data_root`` on first use, as those of
    :class:`RFDETRDemoDataset`.

    Args:
        kind: registered name of the data set that reads them.
        data_root: folder.
        ann_file: ``annotations/train.json`` or ``annotations/val.json``.
        picture_size: side of the pictures in pixels.
        num_train: number of training pictures.
        num_val: number of validation pictures.
        seed: other seeds give other pictures.
        **kwargs: further arguments of ``kind``.

    Raises:
        FileExistsError: if ``data_root`` holds something else, or demo pictures of
            other settings.
    """
    settings = dict(
        figures=_VERSION,
        picture_size=picture_size,
        num_train=num_train,
        num_val=num_val,
        seed=seed,
    )
    write_demo(data_root, settings, _OTHER.get(Path(ann_file).stem))
    return DATASETS.build(
        dict(kwargs, type=kind, data_root=data_root, ann_file=ann_file)
    )


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
            pictures = _draw_split(scratch, split, settings)
            if 'figures' in settings:
                write_coco(path, pictures, figures.CLASSES, figures.POINTS)
            else:
                write_coco(path, pictures, CLASSES)
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
    draw = figures.draw_figures if 'figures' in settings else draw_picture
    (folder / split).mkdir()
    # Full colour resolution: at this size an outline is a few pixels.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    quality += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    for index in range(settings[f'num_{split}']):
        picture, *objects = draw(settings['seed'], SPLITS.index(split), index, side)
        path = folder / split / f'{index:06d}.jpg'
        if not cv2.imwrite(str(path), picture, quality):
            raise OSError(f'cannot write {path}: is the disk full?')
        yield path.name, (side, side), *objects


def write_coco(
    path: Path,
    pictures: Iterable[Picture],
    classes: Sequence[str],
    points: Sequence[str] = (),
) -> None:
    """Write an annotation file.

    Args:
        path: the file.
        pictures: what was drawn.
        classes: names of the categories, whose ids are the labels plus one.
        points: names of the points of every category.
    """
    images, annotations = [], []
    for number, (name, (height, width), *objects) in enumerate(pictures, start=1):
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for box, label, *found in zip(*(x.tolist() for x in objects), strict=True):
            annotation = dict(
                id=len(annotations) + 1,
                image_id=number,
                category_id=label + 1,
                bbox=box,
                area=round(box[2] * box[3], 2),
                iscrowd=0,
            )
            for rows in found:
                annotation['keypoints'] = [number for row in rows for number in row]
                annotation['num_keypoints'] = sum(row[2] > 0 for row in rows)
            annotations.append(annotation)
    names = dict(keypoints=list(points)) if points else {}
    categories = [dict(id=i, name=name, **names) for i, name in enumerate(classes, 1)]
    document = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(document))
