"""The shipped configs hold the official package's (1.11.2) defaults."""

import inspect
from pathlib import Path

import pytest
from mmdet.registry import HOOKS, MODELS, TASK_UTILS
from mmengine.config import Config

import mmdet_rfdetr

CONFIGS = sorted(
    path.name
    for path in Path(mmdet_rfdetr.config('rfdetr_coco.py')).parent.glob('*_coco.py')
)


def default(registry, part, name):
    """The value of an argument that a config leaves out."""
    return inspect.signature(registry.get(part.type)).parameters[name].default


@pytest.mark.parametrize('name', CONFIGS)
def test_training_settings(name):
    cfg = Config.fromfile(mmdet_rfdetr.config(name))
    wrapper, loader = cfg.optim_wrapper, cfg.train_dataloader
    assert wrapper.optimizer == dict(type='AdamW', lr=1e-4, weight_decay=1e-4)
    assert wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert wrapper.get('accumulative_counts', 1) == 1
    assert (loader.batch_size, loader.num_workers, loader.drop_last) == (4, 2, True)
    assert loader.sampler.shuffle is True
    assert loader.dataset.filter_cfg == dict(filter_empty_gt=False)
    assert cfg.val_dataloader.batch_size == 4
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (100, 1)
    schedule = cfg.param_scheduler
    assert (schedule.preset, schedule.lr_drop) == ('step', 100)
    assert 'warmup' not in schedule
    ema = cfg.default_hooks.ema
    assert (ema.decay, ema.tau) == (0.993, 100)
    assert default(HOOKS, ema, 'interval') == 1
    assert default(HOOKS, ema, 'evaluate_base') is False
    assert cfg.randomness.get('seed') is None if 'randomness' in cfg else True


@pytest.mark.parametrize('name', CONFIGS)
def test_model_settings(name):
    model = Config.fromfile(mmdet_rfdetr.config(name)).model
    assert model.num_groups == 13
    head, assigner = model.bbox_head, model.train_cfg.assigner
    weights = [head[loss].loss_weight for loss in ('loss_cls', 'loss_bbox', 'loss_iou')]
    # The official package trains classes twice as much beside keypoints.
    assert weights == [2 if 'keypoint_head' in model else 1, 5, 2]
    assert head.loss_cls.alpha == 0.25
    costs = [assigner[f'{cost}_weight'] for cost in ('cls', 'bbox', 'iou')]
    assert costs == [2, 5, 2]
    assert default(TASK_UTILS, assigner, 'alpha') == 0.25
    if 'mask_head' in model:
        assert [assigner.mask_weight, assigner.dice_weight] == [5, 5]
        assert [head.loss_mask.mask_weight, head.loss_mask.dice_weight] == [5, 5]
    assert model.decoder.feedforward_channels == 2048
    backbone = model.backbone
    for key, value in dict(
        drop_path_rate=0, frozen_stages=-1, with_cp=False, in_channels=3
    ).items():
        assert backbone.get(key, default(MODELS, backbone, key)) == value, key
    (augment,) = model.data_preprocessor.batch_augments
    if augment.type != 'RFDETRBatchMultiScale':  # sizes are not those of the recipe
        return
    offsets = augment.get('offsets', default(MODELS, augment, 'offsets'))
    assert tuple(offsets) == tuple(range(-5, 6))
