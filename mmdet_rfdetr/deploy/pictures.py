"""Pictures to run a file with: those of a data set, or drawn ones."""

import re
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose

from .settings import test_pipeline

DRAWN_SIZE = (480, 640)


def pictures_of(cfg: Config, count: int, *, loader: str = 'val') -> list[np.ndarray]:
    """Read pictures of a data set, spread over all of it.

    Args:
        cfg: a whole config.
        count: how many at most.
        loader: whose, ``'val'`` or ``'train'``.

    Returns:
        (H, W, 3) uint8 in BGR, or drawn ones if there is no such data.
    """
    dataset = cfg.get(f'{loader}_dataloader', ConfigDict()).get('dataset')
    while dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    if not dataset or not _is_there(dataset):
        return draw_pictures(count)
    load = Compose(test_pipeline(cfg)[:1])
    built = DATASETS.build(dict(dataset, pipeline=[]))
    places = np.linspace(0, len(built) - 1, min(count, len(built))).round()
    return [load(built.get_data_info(int(place)))['img'] for place in places]


def _is_there(dataset: dict) -> bool:
    """Whether the annotations of a data set are a file on this machine."""
    # Behind data.yaml stands which part of it is meant; of XML it is a folder.
    name = re.sub('#(train|val|test)$', '', dataset.get('ann_file') or '')
    return bool(name) and Path(dataset.get('data_root') or '', name).exists()


def draw_pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Draw pictures with something on them: shapes on a soft ground, some grain.

    Args:
        count: how many; the same seed gives the same ones.
        seed: of all that is drawn.

    Returns:
        (H, W, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    height, width = DRAWN_SIZE
    pictures = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(rng.integers(3, 12)):
            colour = rng.integers(0, 256, 3).tolist()
            centre = rng.integers((0, 0), (width, height)).tolist()
            sides = rng.integers(10, 120, 2).tolist()
            cv2.ellipse(
                picture, centre, sides, float(rng.uniform(0, 180)), 0, 360, colour, -1
            )
        grain = rng.normal(0, 6, picture.shape)
        pictures.append((picture + grain).clip(0, 255).astype(np.uint8))
    return pictures
