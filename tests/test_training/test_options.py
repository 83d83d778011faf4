"""What a user can add to the recipe, each in a run of mmengine's Runner."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests import factory
from tests.test_precision.recorder import expected, recorded

from .test_recipe import cfg

META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


@pytest.fixture
def data(tmp_path):
    factory.write_coco(tmp_path / 'data', range(6), size=(40, 64))
    return tmp_path / 'data'


@pytest.fixture
def settings(data, tmp_path):
    """A run of one epoch on the data set of the shipped configs."""
    made = cfg(data, tmp_path / tmp_path.name)
    made.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    made.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    for loader in (made.train_dataloader, made.val_dataloader):
        loader.dataset.type = 'RFDETRCocoDataset'
    made.model.backbone.pop('frozen_stages')
    made.custom_hooks = [dict(type='RFDETREMAHook')]
    made.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=False)
    return made


def train(settings):
    runner = Runner.from_cfg(settings)
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    return runner, before


def test_class_balanced_sampling(settings):
    """mmdet's wrapper shows images with rare classes more often."""
    dataset = settings.train_dataloader.dataset
    settings.train_dataloader.dataset = dict(
        type='ClassBalancedDataset', oversample_thr=1.0, dataset=dataset
    )
    seen = []
    runner = Runner.from_cfg(settings)
    step = runner.model.train_step
    runner.model.train_step = lambda data, optim_wrapper: (
        seen.extend(sample.img_id for sample in data['data_samples']),
        step(data, optim_wrapper=optim_wrapper),
    )[1]
    runner.train()
    balanced = runner.train_dataloader.dataset
    assert len(seen) == len(balanced) > 6
    times = np.bincount(seen, minlength=6)
    # Image i has i objects, so the rarest class is in the last images only.
    wanted = np.bincount(balanced.repeat_indices, minlength=6)
    assert (times == wanted).all() and times[0] == 1 < times[5]


def test_a_frozen_encoder_and_images_that_are_not_square(settings):
    """The short side is resized, batches are padded, the encoder keeps every bit."""
    resize = dict(
        type='RFDETRResize',
        image_size=factory.SIDE,
        keep_ratio=True,
        max_long_side=1333,
    )
    load, annotations = settings.train_dataloader.dataset.pipeline[:2]
    pack = dict(type='PackDetInputs', meta_keys=META)
    settings.train_dataloader.batch_size = 2
    settings.train_dataloader.dataset.pipeline = [load, annotations, resize, pack]
    settings.val_dataloader.dataset.pipeline = [load, resize, annotations, pack]
    settings.model.backbone.frozen_stages = 2
    shapes = set()
    runner = Runner.from_cfg(settings)
    runner.model.backbone.register_forward_pre_hook(
        lambda module, inputs: shapes.add(tuple(inputs[0].shape[-2:]))
    )
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    # 40 x 64 pixels become 32 x 51, padded to a multiple of 8.
    assert shapes == {(32, 56)}
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars
    moved = {
        name
        for name, value in runner.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert not any(name.startswith('backbone.') for name in moved)
    for part in ('neck', 'query_selection', 'decoder', 'bbox_head'):
        assert any(name.startswith(part) for name in moved), part


def semi_supervised(settings):
    """Train the detector as student and teacher, on images with and without boxes."""
    pack = dict(type='PackDetInputs', meta_keys=(*META, 'homography_matrix'))
    resize = dict(type='Resize', scale=(64, 64))
    views = dict(unsup_teacher=[resize, pack], unsup_student=[resize, pack])
    branch = dict(type='MultiBranch', branch_field=['sup', *views])
    load = dict(type='LoadImageFromFile')
    boxes = dict(type='LoadAnnotations', with_bbox=True)
    pipelines = (
        [load, boxes, resize, dict(branch, sup=pack)],
        [load, dict(type='LoadEmptyAnnotations'), dict(branch, **views)],
    )
    dataset = settings.train_dataloader.pop('dataset').to_dict()
    settings.train_dataloader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='GroupMultiSourceSampler', batch_size=2, source_ratio=[1, 1]),
        dataset=dict(
            type='ConcatDataset',
            datasets=[dict(dataset, pipeline=pipeline) for pipeline in pipelines],
        ),
    )
    preprocessor = settings.model.pop('data_preprocessor')
    settings.model = dict(
        type='SemiBaseDetector',
        detector=settings.model,
        data_preprocessor=dict(
            type='MultiBranchDataPreprocessor', data_preprocessor=preprocessor
        ),
        semi_train_cfg=dict(
            freeze_teacher=True,
            cls_pseudo_thr=0.0,
            pseudo_label_initial_score_thr=0.0,
            min_pseudo_bbox_wh=(0.01, 0.01),
        ),
        semi_test_cfg=dict(predict_on='teacher'),
    )
    settings.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    settings.val_cfg = settings.val_dataloader = settings.val_evaluator = None
    settings.optim_wrapper = dict(
        type='RFDETRAmpOptimWrapper',
        constructor='RFDETRUniformOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=1e-3),
    )
    settings.default_hooks.checkpoint.by_epoch = False
    settings.default_hooks.drop_schedule = dict(type='RFDETRDropScheduleHook')
    settings.custom_hooks = [dict(type='MeanTeacherHook')]
    return settings


def test_student_and_teacher(settings):
    """In the precision of both, in training and in validation."""
    evaluation = {
        key: settings.get(key) for key in ('val_cfg', 'val_dataloader', 'val_evaluator')
    }
    settings = semi_supervised(settings)
    settings.update(evaluation)
    settings.model.detector.precision = dict(device_type='cpu', dtype='bfloat16')
    runner = Runner.from_cfg(Config(settings.to_dict()))
    before = copy.deepcopy(runner.model.state_dict())
    with recorded() as seen:
        runner.train()
    assert set(seen) == {expected(torch.bfloat16)}
    after = runner.model.state_dict()
    logged = runner.message_hub.log_scalars
    assert {'train/sup_loss_cls', 'train/unsup_loss_cls'} <= logged.keys()
    weight = 'bbox_head.fc_cls.weight'
    for part in ('student', 'teacher'):
        name = f'{part}.{weight}'
        assert not after[name].equal(before[name])
    assert not after[f'student.{weight}'].equal(after[f'teacher.{weight}'])
