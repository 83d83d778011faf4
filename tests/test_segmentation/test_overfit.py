"""Seg Nano learns eight real images by heart, masks included."""

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr import config, set_image_size
from tests.fixtures import DATA, needs_data
from tests.test_overfit import few_images


def overfit_config(folder, annotations='instances_seg_train2017.json'):
    """Seg Nano at a reduced size, without augmentation, for the CPU.

    The images are those without small objects: at this size a fiftieth of the image
    is six cells of a mask wide.
    """
    cfg = Config.fromfile(config('rfdetr-seg_nano_coco.py'))
    set_image_size(cfg, 168)
    cfg.work_dir = str(folder)
    cfg.experiment_name = 'seg_overfit'
    cfg.model.num_queries = 30
    cfg.model.num_groups = 3
    cfg.model.test_cfg.max_per_img = 30
    cfg.model.data_preprocessor.batch_augments = None

    path = str(few_images(folder, annotations, least=0.02))
    images = dict(img=str(DATA / 'coco128' / 'images' / 'train2017'))
    load, resize, annotations, _ = cfg.test_pipeline
    pipeline = [load, annotations, resize, dict(type='PackDetInputs')]
    cfg.train_dataloader.dataset.pipeline = pipeline
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers = 1
        loader.batch_size = 2
        loader.dataset.update(data_root='', ann_file=path, data_prefix=images)
    cfg.val_evaluator.ann_file = path

    epochs = 80
    cfg.train_cfg = dict(
        type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs
    )
    cfg.optim_wrapper = dict(
        type='RFDETRAmpOptimWrapper',
        optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, fused=True),
        clip_grad=dict(max_norm=0.1),
    )
    cfg.param_scheduler = dict(
        type='RFDETRLR', preset='cosine', warmup=5, convert_to_iter_based=True
    )
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.default_hooks.ema.decay = 0.95
    cfg.custom_hooks = [dict(type='RFDETRAllocatorHook')]
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.mark.slow
@needs_data
def test_seg_nano_learns_eight_images(tmp_path):
    runner = Runner.from_cfg(overfit_config(tmp_path))
    runner.train()
    assert runner.message_hub.get_scalar('val/coco/segm_mAP').current() >= 0.7
