"""What a user can add to the recipe, each in a run of mmengine's Runner."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint
from PIL import Image

from mmdet_rfdetr.data import RFDETRDataPreprocessor
from tests import factory
from tests.fixtures import REPOSITORY
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


def test_images_of_four_channels(settings, data):
    """Red, green, blue and one more, from the file to the saved weights."""
    for path in data.glob('*.png'):
        colour = np.asarray(Image.open(path))
        more = np.full((*colour.shape[:2], 1), 50 + int(path.stem), np.uint8)
        Image.fromarray(np.concatenate((colour, more), axis=2)).save(path)
    model = settings.model
    model.backbone.in_channels = 4
    model.data_preprocessor = dict(
        type='RFDETRDataPreprocessor', channels=4, bgr_to_rgb=True, pad_size_divisor=8
    )
    for loader in (settings.train_dataloader, settings.val_dataloader):
        loader.dataset.pipeline[0].update(color_type='unchanged')
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.update(type='RFDETRResize', image_size=factory.SIDE)
                del step['scale'], step['keep_ratio']
    runner, before = train(settings)
    name = 'backbone.patch_embed.weight'
    moved = (runner.model.state_dict()[name] - before[name]).abs().amax((0, 2, 3))
    assert moved.shape == (4,) and (moved > 0).all()
    assert 'val/coco/bbox_mAP' in runner.message_hub.log_scalars
    saved = MODELS.build(model)
    load_checkpoint(saved, str(next(data.parent.glob('*/epoch_1.pth'))))


def test_a_file_for_colour_images_starts_a_model_of_four_channels():
    plain = factory.build_model()
    model = factory.build_model(**{'backbone.in_channels': 4})
    model.load_state_dict(plain.state_dict())
    kernel = plain.backbone.patch_embed.weight
    wanted = 3 / 4 * torch.cat((kernel, kernel[:, :1]), dim=1)
    assert torch.equal(model.backbone.patch_embed.weight, wanted)


def test_channels_are_ordered_and_normalised():
    preprocessor = RFDETRDataPreprocessor(
        channels=5, mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0), bgr_to_rgb=True
    )
    image = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)[:, None, None]
    inputs = preprocessor(dict(inputs=[image.expand(5, 4, 4)]))['inputs']
    assert inputs[0, :, 0, 0].tolist() == [29, 18, 3.5, 39, 48]


def test_three_channels_are_as_in_mmdet():
    values = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    shared = dict(values, bgr_to_rgb=True, pad_size_divisor=8)
    ours = MODELS.build(dict(type='RFDETRDataPreprocessor', channels=3, **shared))
    stock = MODELS.build(dict(type='DetDataPreprocessor', **shared))
    batch = factory.batch((2, 1))
    results = [p(copy.deepcopy(batch), True) for p in (ours, stock)]
    assert torch.equal(results[0]['inputs'], results[1]['inputs'])
    shapes = [r['data_samples'][0].batch_input_shape for r in results]
    assert shapes[0] == shapes[1]


def test_the_config_for_other_channels_loads_them(tmp_path):
    text = (REPOSITORY / 'docs' / 'training.md').read_text()
    block = text.partition('**Other channels.**')[2].split('```python\n')[1]
    (tmp_path / 'mine.py').write_text(block.partition('```')[0])
    factory.write_coco(tmp_path / 'pictures', [2])
    for path in (tmp_path / 'pictures').glob('*.png'):
        Image.open(path).convert('RGBA').save(path)
    made = Config.fromfile(tmp_path / 'mine.py')
    preprocess = MODELS.build(made.model.data_preprocessor)
    for name in ('train', 'val', 'test'):
        dataset = made[f'{name}_dataloader'].dataset
        dataset.update(ann_file='annotations.json', data_prefix=dict(img=''))
        dataset.update(data_root=str(tmp_path / 'pictures'))
        dataset.update(metainfo=dict(classes=factory.CLASSES))
        sample = DATASETS.build(dataset)[0]
        assert len(sample['data_samples'].gt_instances) == 2
        batch = dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']])
        assert preprocess(batch)['inputs'].shape[1] == 4


def test_another_number_of_channels_is_an_error():
    preprocessor = RFDETRDataPreprocessor(channels=4)
    with pytest.raises(ValueError, match="3 channels, .*color_type='unchanged'"):
        preprocessor(dict(inputs=[torch.zeros(3, 8, 8)]))
    with pytest.raises(ValueError, match='mean has 2 numbers and std 3'):
        RFDETRDataPreprocessor(channels=4, mean=(1, 2))


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
    with recorded() as seen:
        runner, before = train(Config(settings.to_dict()))
    assert set(seen) == {expected(torch.bfloat16)}
    after = runner.model.state_dict()
    logged = runner.message_hub.log_scalars
    assert {'train/sup_loss_cls', 'train/unsup_loss_cls'} <= logged.keys()
    weight = 'bbox_head.fc_cls.weight'
    for part in ('student', 'teacher'):
        name = f'{part}.{weight}'
        assert not after[name].equal(before[name])
    assert not after[f'student.{weight}'].equal(after[f'teacher.{weight}'])
