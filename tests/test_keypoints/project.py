"""The shipped Pose Nano config, shrunk, and pictures with points to train it on."""

import json

import numpy as np
from PIL import Image

from tests import shrunk

NAMES = ['top', 'left_foot', 'right_foot']
SIGMAS = [0.1, 0.2, 0.3]
PICTURES = 4


def write_pictures(folder, objects=(1,) * PICTURES):
    """Pictures with so many objects each, of which the second has no points."""
    images, annotations = [], []
    for index, count in enumerate(objects):
        picture = np.full((60, 80, 3), 40, np.uint8)
        for place in range(count):
            x, y = 8 + 12 * index, 6 + 24 * place
            picture[y : y + 20, x : x + 30] = 120
            points = [x + 15, y + 2, 2, x + 2, y + 18, 2, x + 28, y + 18, 1]
            for a, b, _ in zip(*[iter(points)] * 3, strict=True):
                picture[b - 1 : b + 2, a - 1 : a + 2] = 255
            whole = dict(keypoints=points, num_keypoints=3) if place == 0 else {}
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=1,
                    bbox=[x, y, 30, 20],
                    area=1600,  # large enough to count as a medium one
                    iscrowd=0,
                    **whole,
                )
            )
        Image.fromarray(picture).save(folder / f'{index}.png')
        images.append(dict(id=index, file_name=f'{index}.png', height=60, width=80))
    person = dict(id=1, name='person', keypoints=NAMES, skeleton=[[1, 2], [1, 3]])
    (folder / 'annotations.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=[person]))
    )


def shrunk_config(folder):
    """One epoch of two steps on a CPU in float32."""
    known = dict(palette=[(220, 20, 60)], sigmas=list(SIGMAS))
    return shrunk.shrunk_config(
        'rfdetr-pose_nano_coco.py',
        folder,
        dataset=dict(metainfo=dict(classes=('person',), **known)),
        model=dict(keypoint_head=dict(num_keypoints=[3])),
    )
