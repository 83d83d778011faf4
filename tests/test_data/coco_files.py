"""COCO data sets for tests: a sound one, to be damaged."""

import copy
import json

import numpy as np
from mmdet.registry import DATASETS
from PIL import Image

CLASSES = ('cat', 'dog')
# Ids as they come in real files: not from 1, with gaps, not in order.
DOCUMENT = dict(
    images=[
        dict(id=70, file_name='a.jpg', height=40, width=60),
        dict(id=3, file_name='b.jpg', height=60, width=40),
        dict(id=12, file_name='c.jpg', height=50, width=50),
    ],
    annotations=[
        dict(
            id=9,
            image_id=70,
            category_id=17,
            bbox=[5, 6, 20, 10],
            area=200,
            iscrowd=0,
            segmentation=[[5, 6, 25, 6, 25, 16]],
        ),
        dict(
            id=4, image_id=3, category_id=90, bbox=[1, 2, 30, 40], area=900, iscrowd=0
        ),
        dict(id=2, image_id=70, category_id=90, bbox=[0, 0, 60, 40], area=1, iscrowd=0),
        dict(id=30, image_id=12, category_id=17, bbox=[9, 9, 9, 9], area=81, iscrowd=0),
    ],
    categories=[
        dict(id=17, name='cat', supercategory='animal'),
        dict(id=90, name='dog', supercategory='animal'),
    ],
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RFDETRResize', image_size=64),
    dict(type='PackDetInputs'),
]


def document():
    """A sound document that the test may change."""
    return copy.deepcopy(DOCUMENT)


def picture(height, width, seed=0):
    pixels = np.random.RandomState(seed).randint(256, size=(height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def write(folder, content=None):
    """Write ``annotations.json`` and the images of the sound document."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in DOCUMENT['images']:
        size = image['height'], image['width']
        picture(*size).save(folder / image['file_name'], quality=95)
    if not isinstance(content, str):
        content = json.dumps(DOCUMENT if content is None else content)
    (folder / 'annotations.json').write_text(content)
    return folder


def build(folder, **changes):
    return DATASETS.build(
        dict(
            dict(
                type='RFDETRCocoDataset',
                data_root=str(folder),
                ann_file='annotations.json',
                data_prefix=dict(img=''),
                metainfo=dict(classes=CLASSES),
                pipeline=PIPELINE,
            ),
            **changes,
        )
    )
