"""The shipped Seg Nano config, shrunk, and pictures with masks to train it on."""

import json

import numpy as np
import pycocotools.mask as rle
from PIL import Image

from tests import shrunk

CLASSES = ('ring', 'bar')


def write_pictures(folder):
    """A ring as run lengths and a bar as polygon of two parts, in four pictures."""
    images, annotations = [], []
    for index in range(4):
        picture = np.full((60, 80, 3), 40, np.uint8)
        x, y = 5 + 10 * index, 8
        ring = np.zeros((60, 80), bool)
        ring[y : y + 30, x : x + 30] = True
        ring[y + 10 : y + 20, x + 10 : x + 20] = False
        picture[ring] = 220
        picture[45:50, 10:30] = picture[45:50, 40:70] = (200, 60, 60)
        Image.fromarray(picture).save(folder / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', height=60, width=80))
        code = rle.encode(np.asfortranarray(ring.astype(np.uint8)))
        bars = [
            [10, 45, 30, 45, 30, 50, 10, 50],
            [40, 45, 70, 45, 70, 50, 40, 50],
        ]
        for category, box, segmentation in (
            (1, [x, y, 30, 30], dict(size=[60, 80], counts=code['counts'].decode())),
            (2, [10, 45, 60, 5], bars),
        ):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=category,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=segmentation,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )


def shrunk_config(folder):
    """One epoch of two steps on a CPU in float32."""
    palette = [(220, 20, 60), (0, 80, 255)]
    return shrunk.shrunk_config(
        'rfdetr-seg_nano_coco.py',
        folder,
        dataset=dict(metainfo=dict(classes=CLASSES, palette=palette)),
        model=dict(bbox_head=dict(num_classes=2)),
    )
