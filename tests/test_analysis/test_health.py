"""Runs that look alive and learn nothing are told of, each in one sentence."""

import copy
import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from mmdet_rfdetr.analysis.health import (
    RFDETRHealthHook,
    check_objects,
    count_objects,
)
from tests import toy
from tests.toy import Scripted

from ..factory import project_config, write_coco

HEALTH = dict(type='RFDETRHealthHook')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(5))  # image n has n objects
    return folder


def told(runner, train=True):
    """What a run warns of."""
    lines = []
    runner.logger.warning = lines.append
    if train:
        runner.train()
    return lines


def detector(data, folder, **changes):
    cfg = project_config(data, folder, **changes)
    cfg.default_hooks.health = HEALTH
    return cfg


def test_nothing_to_remark_about_a_sound_run(data, tmp_path):
    changes = {'train_cfg.max_epochs': 6, 'train_cfg.val_interval': 6}
    cfg = detector(data, tmp_path, **changes)
    runner = Runner.from_cfg(cfg)
    assert told(runner) == []
    assert runner.iter > 10


def test_an_epoch_that_was_complete_is_not_one_without_objects(tmp_path):
    """A run may be resumed at its end, and sees no batch of it."""
    runner = toy.runner(tmp_path, [HEALTH])
    lines = told(runner, train=False)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, RFDETRHealthHook))
    hook.after_train_epoch(runner)
    assert lines == []


def test_more_objects_than_queries(data, tmp_path):
    cfg = detector(data, tmp_path, **{'model.num_queries': 2})
    lines = told(Runner.from_cfg(cfg))
    assert lines[0].startswith('2 training images')
    assert 'up to 4' in lines[0] and 'model.num_queries' in lines[0]


def test_more_objects_than_detections(data, tmp_path):
    cfg = detector(data, tmp_path, **{'model.test_cfg.max_per_img': 3})
    cfg.val_dataloader.dataset.type = 'RFDETRCocoDataset'
    runner = Runner.from_cfg(cfg)
    lines = []
    runner.logger.warning = lines.append
    check_objects(runner, runner.model)
    (line,) = lines
    assert line.startswith('1 validation images')
    assert 'up to 4' in line and 'model.test_cfg.max_per_img' in line


def test_objects_that_the_pipeline_loses(data, tmp_path):
    cfg = detector(data, tmp_path)
    small = dict(type='FilterAnnotations', min_gt_bbox_wh=(999, 999), keep_empty=False)
    cfg.train_dataloader.dataset.pipeline.insert(-1, small)
    (line,) = (line for line in told(Runner.from_cfg(cfg)) if 'no batch' in line)
    assert 'train_dataloader.dataset.pipeline' in line


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    ('image', 'values'),
    [
        (torch.linspace(0, 1, 64), '0 to 1'),
        (torch.linspace(0, 1, 64).round().byte(), '0 to 1'),  # RFDETRResize after it
        (torch.linspace(-2.1, 2.6, 64), '-2.1 to 2.6'),
        (torch.linspace(0, 60000, 64), '0 to 6e+04'),
        (torch.linspace(-40, 500, 64), None),  # photometric distortion
        (torch.zeros(64), None),
    ],
)
def test_images_whose_pixels_are_no_levels(image, values, mode, tmp_path):
    run = toy.runner(tmp_path, [HEALTH])
    run.model.data_preprocessor._enable_normalize = True
    (hook,) = (hook for hook in run.hooks if isinstance(hook, RFDETRHealthHook))
    lines = told(run, train=False)
    for _ in range(2):  # it is said once
        batch = dict(inputs=[image.expand(3, 1, 64)])
        getattr(hook, f'before_{mode}_iter')(run, 0, batch)
    assert len(lines) == (values is not None)
    if lines:
        assert f'values of {values}, and' in lines[0]
        assert f'step of {mode}_dataloader.dataset.pipeline' in lines[0]


def test_objects_of_several_branches_are_counted():
    # As mmdet's MultiBranch packs them: an image is in some branches only.
    labelled = DetDataSample(gt_instances=InstanceData(labels=torch.zeros(3)))
    branches = dict(sup=[labelled, None], unsup_student=[None, DetDataSample()])
    assert count_objects(dict(data_samples=branches)) == 3


def test_objects_that_the_annotations_lose(tmp_path):
    write_coco(tmp_path / 'data', range(3))
    path = tmp_path / 'data' / 'annotations.json'
    document = json.loads(path.read_text())
    for annotation in document['annotations']:
        annotation['bbox'][2:] = [0, 0]
    path.write_text(json.dumps(document))
    lines = told(Runner.from_cfg(detector(tmp_path / 'data', tmp_path / 'work')))
    assert any('no object at all' in line for line in lines)
    # One reason is enough.
    assert not any('no batch' in line for line in lines)


# What does not depend on pictures


class Idle(toy.Toy):
    """A trainable parameter has no part in the loss."""

    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


class Zero(Idle):
    """The parameter has a part in the loss that changes nothing."""

    def forward(self, inputs, mode):
        outputs = super().forward(inputs, mode)
        if mode == 'loss':
            outputs['loss'] = outputs['loss'] + 0 * self.idle.sum()
        return outputs


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(toy, 'Toy', Idle)


@pytest.mark.parametrize('model', [Idle, Zero])
def test_parameters_without_gradient(model, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, 'Toy', model)
    (line,) = told(toy.runner(tmp_path, [HEALTH]))
    assert line.startswith(
        'These parameters had no gradient in 10 steps: idle. They learn nothing'
    )


def test_a_gradient_may_be_late(tmp_path, monkeypatch):
    class Late(Idle):
        def forward(self, inputs, mode):
            outputs = super().forward(inputs, mode)
            if mode == 'loss' and self.seen == 7:
                outputs['loss'] = outputs['loss'] + self.idle.sum()
            return outputs

    monkeypatch.setattr(toy, 'Toy', Late)
    assert told(toy.runner(tmp_path, [HEALTH])) == []


def test_parameters_that_the_optimizer_does_not_know(idle, tmp_path):
    runner = toy.runner(tmp_path, [HEALTH], epochs=1)
    optimizer = torch.optim.SGD([runner.model.weight], lr=0.1)
    runner.optim_wrapper = runner.build_optim_wrapper(
        dict(type='OptimWrapper', optimizer=optimizer)
    )
    lines = told(runner)
    assert 'optimizer does not know these parameters: idle.' in lines[0]


def test_groups_and_keys_that_match_nothing(tmp_path):
    runner = toy.runner(tmp_path, [HEALTH], epochs=1)
    paramwise = dict(custom_keys={'backbone': dict(lr_mult=0.1), 'weight': {}})
    runner.cfg.optim_wrapper = dict(paramwise_cfg=paramwise)
    optimizer = torch.optim.SGD(
        [dict(params=[runner.model.weight]), dict(params=[])], lr=0.1
    )
    runner.optim_wrapper = runner.build_optim_wrapper(
        dict(type='OptimWrapper', optimizer=optimizer)
    )
    first, second = told(runner)
    assert "custom_keys has 'backbone', and no parameter" in first
    assert 'Groups [1] of the optimizer have no parameters' in second


@pytest.mark.parametrize(
    ('scores', 'words'),
    [
        ([0.0] * 6, ['exactly 0']),
        ([1e-5] * 6, ['next to 0']),
        ([0.0, 0.0, 0.0, 0.1, 0.1, 0.1], []),
        ([-1.0] * 6, []),
    ],
)
def test_an_ap_of_zero_while_the_loss_falls(scores, words, tmp_path):
    runner = toy.runner(tmp_path, [HEALTH], epochs=len(scores), metric=Scripted(scores))
    lines = told(runner)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith(f'coco/bbox_mAP is {word} while the loss fell from')


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('mode', ['val', 'test'])
@pytest.mark.parametrize('what', ['scores', 'bboxes'])
def test_no_metric_makes_a_number_of_what_is_not_finite(tmp_path, mode, what, value):
    run = toy.runner(tmp_path, [HEALTH])
    (hook,) = (hook for hook in run.hooks if isinstance(hook, RFDETRHealthHook))
    after_iter = getattr(hook, f'after_{mode}_iter')
    after_epoch = getattr(hook, f'after_{mode}_epoch')
    lines = []
    run.logger.error = lines.append
    sound = InstanceData(scores=torch.ones(2), bboxes=torch.ones(2, 4))
    broken = copy.deepcopy(sound)
    broken[what][1] = value
    for instances, count in ((sound, 0), (broken, 1)):
        outputs = [DetDataSample(pred_instances=part) for part in (sound, instances)]
        metrics = {'pascal_voc/mAP': 0.0, 'pascal_voc/AP50': 0.0}
        after_iter(run, 0, outputs=outputs)
        after_epoch(run, metrics)
        assert len(lines) == count
        assert all(score != score for score in metrics.values()) == bool(count)
    assert lines[0].startswith('The detections of 1 images are not finite')
    # RFDETRCocoMetric has said it.
    after_iter(run, 0, outputs=outputs)
    after_epoch(run, {'coco/bbox_mAP': float('nan')})
    assert len(lines) == 1


def test_an_ap_of_zero_of_a_run_that_learns_nothing(tmp_path, monkeypatch):
    class Stuck(toy.Toy):
        def forward(self, inputs, mode):
            outputs = super().forward(inputs, mode)
            if mode == 'loss':
                outputs['loss'] = outputs['loss'] * 0 + 1
            return outputs

    monkeypatch.setattr(toy, 'Toy', Stuck)
    runner = toy.runner(tmp_path, [HEALTH], epochs=6, metric=Scripted([0.0] * 6))
    assert not any('exactly 0' in line for line in told(runner))


@pytest.mark.parametrize('by_epoch', (True, False))
def test_a_run_of_iterations_that_saves_once(by_epoch, tmp_path):
    hook = dict(type='CheckpointHook', by_epoch=by_epoch, interval=2)
    run = toy.runner(
        tmp_path,
        [HEALTH],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4),
        scheduler=dict(type='RFDETRLR', by_epoch=False),
        default_hooks=dict(checkpoint=hook),
    )
    assert ['checkpoint.by_epoch=False' in line for line in told(run)] == (
        [True] * by_epoch
    )
