"""The shipped Pose Nano config, shrunk, and pictures with points to train it on."""

import json

import numpy as np
from mmengine.config import Config
from PIL import Image

from mmdet_rfdetr import config, set_image_size

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
    cfg = Config.fromfile(config('rfdetr-pose_nano_coco.py'))
    set_image_size(cfg, 96)
    dataset = dict(
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(
            classes=('person',), palette=[(220, 20, 60)], sigmas=list(SIGMAS)
        ),
    )
    loader = dict(
        batch_size=2, num_workers=0, persistent_workers=False, dataset=dataset
    )
    metric = dict(ann_file=str(folder / 'annotations.json'))
    cfg.merge_from_dict(
        dict(
            work_dir=str(folder / 'work'),
            model=dict(
                precision=None,
                num_queries=8,
                num_groups=2,
                backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
                neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
                decoder=dict(
                    num_layers=2,
                    self_attn_heads=2,
                    cross_attn_heads=2,
                    feedforward_channels=32,
                ),
                keypoint_head=dict(num_keypoints=[3]),
                test_cfg=dict(max_per_img=6),
            ),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=metric,
            test_evaluator=metric,
            optim_wrapper=dict(device_type='cpu', dtype='float32'),
            train_cfg=dict(max_epochs=1),
            custom_hooks=[dict(type='RFDETRValLossHook')],
        )
    )
    return cfg
