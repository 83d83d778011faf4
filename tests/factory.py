"""Small things that tests train, load and evaluate: COCO files, models, projects.

Everything has a size that makes a test quick, and can be changed where a test needs
another: functions take the changes of a config by dotted name, as ``--cfg-options``
does. Nothing here needs more than the core of the package.
"""

import copy
import json

import numpy as np
import pycocotools.mask as run_lengths
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image

from tests.runs import run_name

CLASSES = ('a', 'b', 'c')
SIDE = 32
"""Pixels of the square that the model of :func:`model_config` is given."""

# --- COCO files ----------------------------------------------------------------------

ANIMALS = ('cat', 'dog')
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


def document():
    """A sound document of three images that a test may damage."""
    return copy.deepcopy(DOCUMENT)


def coco(
    counts=(0, 1, 2, 3, 4),
    size=(48, 64),
    *,
    classes=CLASSES,
    category_ids=None,
    image_ids=None,
    turned=False,
    stem='',
    seed=1,
):
    """A document with boxes at random, of all classes in turn, each with a mask.

    Every second mask is a ring in run lengths, the others are polygons of two parts.

    Args:
        counts: number of objects of each image.
        size: (height, width) of all images.
        classes: names of the categories.
        category_ids: of the classes; 1, 2, ... if left out.
        image_ids: 0, 1, ... if left out.
        turned: whether every second image is as high as the others are wide.
        stem: files are named ``<stem>0.png``, ``<stem>1.png``, ...
        seed: of the boxes.
    """
    generator = torch.Generator().manual_seed(seed)
    category_ids = category_ids or range(1, len(classes) + 1)
    image_ids = image_ids or range(len(counts))
    images, annotations = [], []
    for number, (image_id, count) in enumerate(zip(image_ids, counts, strict=True)):
        name = f'{stem}{number}.png'
        height, width = shape = size[::-1] if turned and number % 2 else size
        scale = torch.tensor([width, height] * 2)
        images.append(dict(id=image_id, file_name=name, height=height, width=width))
        for corners in (boxes(generator, count) * scale).tolist():
            x, y, right, bottom = corners
            index = len(annotations)
            annotations.append(
                dict(
                    id=index + 1,
                    image_id=image_id,
                    category_id=category_ids[index % len(classes)],
                    bbox=[x, y, right - x, bottom - y],
                    area=(right - x) * (bottom - y),
                    iscrowd=0,
                    segmentation=ring(corners, shape) if index % 2 else bars(corners),
                )
            )
    categories = [
        dict(id=key, name=name) for key, name in zip(category_ids, classes, strict=True)
    ]
    return dict(images=images, annotations=annotations, categories=categories)


def boxes(generator, count):
    """Relative boxes xyxy (count, 4) of a tenth to a half of the side."""
    corners = torch.rand(count, 2, generator=generator) * 0.5
    sides = 0.1 + torch.rand(count, 2, generator=generator) * 0.4
    return torch.cat((corners, corners + sides), dim=1)


def ring(corners, size):
    """Run lengths of a box without its middle."""
    mask = np.zeros(size, np.uint8, order='F')
    x, y, right, bottom = (round(value) for value in corners)
    mask[y:bottom, x:right] = 1
    wide, high = (right - x) // 3, (bottom - y) // 3
    mask[y + high : bottom - high, x + wide : right - wide] = 0
    code = run_lengths.encode(mask)
    return dict(size=list(size), counts=code['counts'].decode())


def bars(corners):
    """Polygons of the upper and the lower third of a box."""
    x, y, right, bottom = corners
    third = (bottom - y) / 3
    return [
        [x, top, right, top, right, top + third, x, top + third]
        for top in (y, bottom - third)
    ]


def picture(height, width, seed=0):
    """Noise, as an image of PIL."""
    pixels = np.random.RandomState(seed).randint(256, size=(height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def write(folder, content=None, pictures=DOCUMENT):
    """Write ``annotations.json`` and pictures.

    Args:
        folder: a pathlib.Path; it is made.
        content: a document, or a text; that of :func:`document` if left out.
        pictures: the document whose images are drawn, whatever ``content`` says.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(pictures['images']):
        drawn = picture(image['height'], image['width'], number)
        drawn.save(folder / image['file_name'], quality=95)
    if not isinstance(content, str):
        content = json.dumps(DOCUMENT if content is None else content)
    (folder / 'annotations.json').write_text(content)
    return folder


def write_coco(folder, *args, **kwargs):
    """Write what :func:`coco` makes of the other arguments; returns the folder."""
    document = coco(*args, **kwargs)
    return write(folder, document, document)


def edit(folder, change, to=None):
    """Change a document that was written.

    Args:
        folder: of its ``annotations.json``.
        change: called with the document; changes it in place.
        to: folder of the changed one, made if it is not there; ``folder`` if left out.

    Returns:
        The folder of the changed document.
    """
    document = json.loads((folder / 'annotations.json').read_text())
    change(document)
    to = to or folder
    to.mkdir(exist_ok=True)
    (to / 'annotations.json').write_text(json.dumps(document))
    return to


# --- Data sets -----------------------------------------------------------------------

META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
LOAD = dict(type='RFDETRLoadImage')
ANNOTATIONS = dict(type='LoadAnnotations', with_bbox=True)
RESIZE = dict(type='RFDETRResize', image_size=SIDE)
PACK = dict(type='PackDetInputs', meta_keys=META)
PIPELINE = [LOAD, ANNOTATIONS, RESIZE, PACK]


def dataset(folder, **changes):
    """Config of the data set in a folder; ``changes`` replace its keys."""
    config = dict(
        type='RFDETRCocoDataset',
        data_root=str(folder),
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=PIPELINE,
    )
    return copy.deepcopy({**config, **changes})


def build(folder, **changes):
    """Build the data set of :func:`document`."""
    changes = {'metainfo': dict(classes=ANIMALS), **changes}
    return DATASETS.build(dataset(folder, **changes))


def metric(folder, **changes):
    """Config of the metric for the data set in a folder."""
    file = str(folder / 'annotations.json')
    return dict(type='RFDETRCocoMetric', ann_file=file, metric='bbox') | changes


def loader(dataset, shuffle=False, **changes):
    """Config of a loader of two images a batch, in this process."""
    config = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dataset,
    )
    return {**config, **changes}


# --- Models --------------------------------------------------------------------------

MODEL = dict(
    type='RFDETR',
    num_queries=6,
    num_groups=2,
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=8,
    ),
    backbone=dict(
        type='RFDETRBackbone',
        embed_dims=16,
        num_heads=2,
        patch_size=4,
        num_windows=2,
        out_indices=(1, 2),
        pos_embed_size=8,
    ),
    neck=dict(
        type='RFDETRProjector', in_channels=[16, 16], out_channels=16, num_blocks=1
    ),
    decoder=dict(
        num_layers=2,
        self_attn_heads=2,
        cross_attn_heads=2,
        num_points=2,
        feedforward_channels=32,
    ),
    bbox_head=dict(
        type='RFDETRHead',
        num_classes=len(CLASSES),
        loss_cls=dict(type='RFDETRIoUAwareBCELoss'),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0, eps=1e-7),
    ),
    train_cfg=dict(assigner=dict(type='RFDETRHungarianAssigner')),
    test_cfg=dict(max_per_img=10),
)
"""Two blocks, the first of which has windows, one level, two decoder layers."""


def model_config(**changes):
    """Config of the small model.

    Args:
        **changes: new values by dotted name, as ``{'backbone.num_windows': 1}``.
    """
    config = copy.deepcopy(MODEL)
    for name, value in changes.items():
        *path, last = name.split('.')
        part = config
        for key in path:
            part = part[key]
        part[last] = value
    return config


def build_model(**changes):
    """Build the changed model; the same each time, and nothing in it is zero."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(model_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(counts, seed=0):
    """A batch as a loader gives it: random images, each with so many objects."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for count in counts:
        sample = DetDataSample(
            metainfo=dict(img_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes(generator, count) * SIDE,
            labels=torch.randint(len(CLASSES), (count,), generator=generator),
        )
        samples.append(sample)
    images = [
        torch.randint(256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        for _ in counts
    ]
    return dict(inputs=images, data_samples=samples)


# --- Projects ------------------------------------------------------------------------


def project_config(data, work_dir, **changes):
    """Config of a run: one epoch of training with the recipe, and evaluation.

    Args:
        data: folder that :func:`write_coco` has filled.
        work_dir: for logs and checkpoints.
        **changes: new values by dotted name; dicts are merged.
    """
    test_pipeline = [LOAD, RESIZE, ANNOTATIONS, PACK]
    # A process that is forked waits for ever for threads of the engine of its parent.
    evaluator = metric(data, engine='pycocotools')
    test = loader(dataset(data, test_mode=True, pipeline=test_pipeline))
    config = dict(
        default_scope='mmdet',
        experiment_name=run_name(),
        work_dir=str(work_dir),
        model=model_config(),
        train_dataloader=loader(
            dataset(data, filter_cfg=dict(filter_empty_gt=False)), shuffle=True
        ),
        val_dataloader=test,
        test_dataloader=test,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        optim_wrapper=dict(
            type='RFDETRAmpOptimWrapper',
            constructor='RFDETROptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
            clip_grad=dict(max_norm=0.1),
        ),
        param_scheduler=dict(
            type='RFDETRLR', preset='cosine', convert_to_iter_based=True
        ),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            checkpoint=dict(type='CheckpointHook', interval=1),
            ema=dict(type='RFDETREMAHook'),
        ),
        custom_hooks=[],
        visualizer=dict(type='DetLocalVisualizer', vis_backends=[]),
        randomness=dict(seed=0),
        log_level='INFO',
    )
    config = Config(copy.deepcopy(config))
    config.merge_from_dict(changes)
    return config


# What ``_base_`` says in a project that inherits from the installed package.
NANO = "__import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')"
USER_CLASSES = ('square', 'bar')
# Below a line that says what it inherits from, this is a whole project config.
USER_CONFIG = """
__import__('mmdet_rfdetr').set_image_size(_base_, 64)

classes = ('square', 'bar')
model = dict(
    precision=None,
    num_queries=12,
    num_groups=2,
    backbone=dict(embed_dims=24, num_heads=2, out_indices=(1, 2)),
    neck=dict(in_channels=[24, 24], out_channels=16, num_blocks=1),
    decoder=dict(
        num_layers=1, self_attn_heads=2, cross_attn_heads=2, feedforward_channels=32
    ),
    bbox_head=dict(num_classes=len(classes)),
    test_cfg=dict(max_per_img=10),
)
load = dict(type='LoadImageFromFile')
resize = dict(type='Resize', scale=(64, 64))
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
annotations = dict(type='LoadAnnotations', with_bbox=True)
train_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='pictures/',
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        pipeline=[load, annotations, resize, pack],
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='pictures/',
        ann_file='annotations.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[load, resize, annotations, pack],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CocoMetric',
    ann_file='pictures/annotations.json',
    metric='bbox',
)
test_evaluator = val_evaluator
optim_wrapper = dict(device_type='cpu', dtype='float32')
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


def write_project(folder, base=NANO):
    """Write ``mine.py`` of a user, and pictures of the two classes.

    Args:
        folder: a pathlib.Path.
        base: the right side of ``_base_ = ...``.

    Returns:
        The path of the config, which is to be read in ``folder``.
    """
    write_coco(
        folder / 'pictures',
        [2] * 4,
        (60, 80),
        turned=True,
        classes=USER_CLASSES,
        category_ids=(7, 3),  # not in order
    )
    config = folder / 'mine.py'
    config.write_text(f'_base_ = {base}{USER_CONFIG}')
    return config
