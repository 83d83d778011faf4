"""Nano learns eight real images by heart.

This takes data, labels, losses, boxes and evaluation together: a mistake in any of
them keeps the mAP low.
"""

import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr import config, set_image_size

from .fixtures import DATA, needs_data

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


@pytest.mark.slow
@needs_data
def test_nano_learns_eight_images(tmp_path):
    cfg = Config.fromfile(config('rfdetr_nano_coco.py'))
    set_image_size(cfg, 256)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = 'overfit'
    cfg.model.num_queries = 100
    cfg.model.num_groups = 4
    cfg.model.test_cfg.max_per_img = 100
    cfg.model.data_preprocessor.batch_augments = None

    path = str(few_images(tmp_path))
    images = dict(img=str(DATA / 'coco128' / 'images' / 'train2017'))
    load, resize, annotations, pack = cfg.test_pipeline
    cfg.train_dataloader.dataset.pipeline = [
        load,
        annotations,
        resize,
        dict(type='PackDetInputs'),
    ]
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 1
        loader.dataset.update(data_root='', ann_file=path, data_prefix=images)
    cfg.val_evaluator.ann_file = path

    epochs = 200
    cfg.train_cfg = dict(
        type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs
    )
    cfg.optim_wrapper = dict(
        type='RFDETRAmpOptimWrapper',
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, fused=True),
        clip_grad=dict(max_norm=0.1),
    )
    cfg.param_scheduler = dict(
        type='RFDETRLR', preset='cosine', warmup=10, convert_to_iter_based=True
    )
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.default_hooks.ema.decay = 0.95
    cfg.custom_hooks = [dict(type='RFDETRAllocatorHook')]
    cfg.randomness = dict(seed=0)

    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.get_scalar('val/coco/bbox_mAP').current() >= 0.93
