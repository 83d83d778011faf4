"""Pose models learn: eight pictures by heart, and a demo as the official one does."""

import json

import pytest
from mmengine.runner import Runner

from tests.live import needs_official
from tests.test_keypoints.learning import POSE, compare, demo_config

PICTURES, EPOCHS = 8, 150


def by_heart_config(folder):
    """The demo's model, from nothing, on eight pictures that are those of the test."""
    cfg = demo_config(POSE, folder)
    cfg.load_from = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.update(num_train=PICTURES, num_val=1)
    part = dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'))
    cfg.val_dataloader.dataset.update(part)
    cfg.test_dataloader = cfg.val_dataloader
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(folder / 'data/annotations/train.json')
    cfg.train_cfg.update(max_epochs=EPOCHS, val_interval=EPOCHS)
    cfg.param_scheduler.warmup = EPOCHS / 10
    cfg.default_hooks.checkpoint.interval = EPOCHS
    cfg.default_hooks.ema.decay = 0.95
    return cfg


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path):
    """Data, flips aside, labels, losses, points and evaluation taken together."""
    runner = Runner.from_cfg(by_heart_config(tmp_path))
    runner.train()
    found = runner.message_hub.get_scalar('val/coco/keypoints_mAP').current()
    document = json.loads((tmp_path / 'data/annotations/train.json').read_text())
    assert len(document['images']) == PICTURES
    assert found >= 0.9


@pytest.mark.slow
@needs_official
def test_the_demo_learns_as_the_official_model_does(tmp_path):
    ours, official = compare(tmp_path).mean(axis=0)
    assert official >= 0.3
    assert ours >= 0.95 * official
