"""Training a variant on eight real images until it knows them by heart."""

import json

from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr import config, set_image_size

from .fixtures import DATA

IMAGES = 8


def few_images(folder, annotations='instances_train2017.json', least=0.0):
    """Write an annotation file of the first images that have objects.

    Args:
        folder: where to write it.
        annotations: file of coco128.
        least: part of the image that every one of its objects has to cover.
    """
    source = DATA / 'coco128' / 'annotations' / annotations
    document = json.loads(source.read_text())
    smallest = {}
    for annotation in document['annotations']:
        key, area = annotation['image_id'], annotation['area']
        smallest[key] = min(area, smallest.get(key, area))
    images = [
        image
        for image in document['images']
        if smallest.get(image['id'], -1) >= least * image['height'] * image['width']
    ][:IMAGES]
    kept = {image['id'] for image in images}
    document['images'] = images
    document['annotations'] = [
        a for a in document['annotations'] if a['image_id'] in kept
    ]
    path = folder / 'eight.json'
    path.write_text(json.dumps(document))
    return path


def by_heart_config(
    folder,
    name,
    annotations,
    *,
    image_size,
    queries,
    groups,
    epochs,
    warmup,
    batch_size,
):
    """A shipped config at a reduced size, without augmentation, for the CPU.

    Args:
        folder: work folder.
        name: of the shipped config.
        annotations: annotation file of the images, see :func:`few_images`.
        image_size: side of the input in pixels.
        queries: queries of a group.
        groups: groups of queries.
        epochs: how often every image is seen.
        warmup: epochs until the rate is reached.
        batch_size: images of a step.
    """
    cfg = Config.fromfile(config(name))
    set_image_size(cfg, image_size)
    cfg.work_dir = str(folder)
    cfg.model.num_queries = queries
    cfg.model.num_groups = groups
    cfg.model.test_cfg.max_per_img = queries
    cfg.model.data_preprocessor.batch_augments = None

    images = dict(img=str(DATA / 'coco128' / 'images' / 'train2017'))
    load, resize, load_annotations, _ = cfg.test_pipeline
    pipeline = [load, load_annotations, resize, dict(type='PackDetInputs')]
    cfg.train_dataloader.dataset.pipeline = pipeline
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 1
        loader.batch_size = batch_size
        loader.dataset.update(
            data_root='', ann_file=str(annotations), data_prefix=images
        )
    cfg.val_evaluator.ann_file = str(annotations)

    cfg.train_cfg = dict(
        type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs
    )
    cfg.optim_wrapper = dict(
        type='RFDETRAmpOptimWrapper',
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, fused=True),
        clip_grad=dict(max_norm=0.1),
    )
    cfg.param_scheduler = dict(
        type='RFDETRLR', preset='cosine', warmup=warmup, convert_to_iter_based=True
    )
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.default_hooks.ema.decay = 0.95
    cfg.randomness = dict(seed=0)
    return cfg


def train_to_score(cfg, score):
    """Train, and return a metric of the validation that ends it."""
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.message_hub.get_scalar(f'val/coco/{score}').current()
