"""Small data sets of points."""

import json

import cv2
import numpy as np
from mmdet.registry import DATASETS

NAMES = ['nose', 'left_hand', 'right_hand']
LOAD = dict(type='RFDETRLoadKeypoints', with_bbox=True)
PACK = dict(type='RFDETRPackKeypoints', meta_keys=('img_id', 'img_shape'))


def write(folder, annotations, categories=None, size=(40, 60)):
    """A picture and an annotation file; their folder."""
    height, width = size
    folder.mkdir(exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    cv2.imwrite(str(folder / 'a.png'), picture)
    document = dict(
        images=[dict(id=1, file_name='a.png', height=height, width=width)],
        annotations=[
            dict(dict(id=i, image_id=1, category_id=1, iscrowd=0), **annotation)
            for i, annotation in enumerate(annotations, 1)
        ],
        categories=categories or [dict(id=1, name='person', keypoints=NAMES)],
    )
    (folder / 'a.json').write_text(json.dumps(document))
    return folder


def dataset(folder, *transforms, classes=('person',), **metainfo):
    """The data set of a folder, with these transforms between loading and packing."""
    return DATASETS.build(
        dict(
            type='RFDETRCocoKeypointDataset',
            ann_file=str(folder / 'a.json'),
            data_prefix=dict(img=str(folder)),
            metainfo=dict(classes=classes, **metainfo),
            pipeline=[dict(type='RFDETRLoadImage'), LOAD, *transforms, PACK],
        )
    )


PERSON = dict(
    bbox=[10, 5, 30, 30], area=900, keypoints=[20, 8, 2, 12, 20, 1, 38, 21, 2]
)
OBJECT = dict(bbox=[2, 2, 6, 6], area=36)


def objects(data, name='gt_instances'):
    return data[0]['data_samples'].get(name)
