"""Names and values of the metrics that choose a checkpoint and stop a run."""

import json

import pytest
import torch
from mmdet.registry import METRICS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.reliability.selection import check_metric_names
from tests.test_reliability.project import config
from tests.toy import Scripted

from .. import toy
from ..factory import CLASSES, write_coco

STOPPING = dict(type='EarlyStoppingHook', rule='greater', patience=2, min_delta=0.001)
NAN = float('nan')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(3))
    return folder


@pytest.fixture
def build(data, tmp_path, monkeypatch):
    """A runner of a model of one weight with a metric for detectors."""
    monkeypatch.setattr(toy.Numbers, 'metainfo', dict(classes=CLASSES))

    def build(hooks=(), evaluator=None, **checkpoint):
        coco = dict(type='RFDETRCocoMetric', ann_file=str(data / 'annotations.json'))
        hook = dict(
            type='RFDETRCheckpointHook', save_best='coco/bbox_mAP', rule='greater'
        )
        return toy.runner(
            tmp_path,
            [*hooks] or [dict(type='RFDETREMAHook')],
            metric=METRICS.build(evaluator or coco),
            default_hooks=dict(checkpoint=dict(hook, **checkpoint)),
        )

    return build


VOC = dict(type='VOCMetric', metric='mAP')
FORMAT_ONLY = dict(format_only=True, outfile_prefix='results')


@pytest.mark.parametrize(
    'settings, message',
    [
        (
            dict(save_best='coco/bbox_map'),
            r"save_best='coco/bbox_map' is no .*\(did you mean coco/bbox_mAP\?\)",
        ),
        (dict(save_best='coco/segm_mAP'), 'one of coco/bbox_mAP, coco/bbox_mAP_50'),
        (dict(save_best=['coco/bbox_mAP', 'val/mAP']), "save_best='val/mAP' is no"),
        (
            dict(evaluator=dict(type='RFDETRCocoMetric', **FORMAT_ONLY)),
            'is no metric of val_evaluator: it gives none, with format_only=True',
        ),
        (
            dict(evaluator=VOC),
            "'coco/bbox_mAP' is no .*VOCMetric's, 'pascal_voc/...', or 'auto' for",
        ),
        (
            dict(hooks=[dict(STOPPING, monitor='coco/bbox_map')]),
            "monitor='coco/bbox_map' is no metric of val_evaluator",
        ),
        (
            dict(
                evaluator=VOC,
                save_best='pascal_voc/mAP',
                hooks=[dict(STOPPING, monitor='coco/bbox_mAP')],
            ),
            "monitor='coco/bbox_mAP' is no metric",
        ),
    ],
)
def test_a_metric_that_there_is_not_ends_the_run_before_its_first_step(
    build, settings, message
):
    run = build(**settings)
    with pytest.raises(SettingError, match=message):
        run.train()
    assert run.iter == 0


class Adds(Hook):
    """Adds a metric, as a hook of anybody's may."""

    def after_val_epoch(self, runner, metrics=None):
        metrics['mine'] = 0.5


@pytest.mark.parametrize(
    'hooks, key, metric',
    [
        ([], 'auto', toy.Weight()),
        ([], 'weight', toy.Weight()),
        ([], 'lvis/weight', toy.Weight(prefix='lvis')),
        ([Adds()], 'mine', Scripted([0.1] * 2)),
    ],
)
def test_metrics_that_may_be_there_are_waited_for(tmp_path, hooks, key, metric):
    checkpoint = dict(type='RFDETRCheckpointHook', save_best=key, rule='greater')
    run = toy.runner(
        tmp_path, hooks, metric=metric, default_hooks=dict(checkpoint=checkpoint)
    )
    run.train()
    assert list(tmp_path.glob('best_*'))


def test_losses_of_the_validation_are_metrics(build):
    run = build([dict(type='RFDETRValLossHook')], save_best='loss_cls', rule='less')
    check_metric_names(run)
    run = build([dict(type='RFDETRValLossHook')], save_best='coco/loss')
    with pytest.raises(SettingError, match="'coco/loss' is no metric"):
        check_metric_names(run)


def test_early_stopping_needs_a_validation(build):
    run = build([dict(STOPPING, monitor='coco/bbox_mAP')])
    run._val_loop = None
    with pytest.raises(SettingError, match="'coco/bbox_mAP', and nothing is validated"):
        check_metric_names(run)


def train(folder, scores, hooks=(), **checkpoint):
    hook = dict(type='RFDETRCheckpointHook', interval=1, save_best='coco/bbox_mAP')
    run = toy.runner(
        folder,
        [dict(type='RFDETREMAHook'), *hooks],
        epochs=len(scores),
        metric=Scripted(scores),
        loop='RFDETRTrainLoop',
        default_hooks=dict(checkpoint=dict(hook, **checkpoint)),
    )
    lines = []
    run.logger.warning = lines.append
    run.train()
    return run, lines


def best(folder):
    return [path.name for path in folder.glob('best_*')]


@pytest.mark.parametrize('value', [-1.0, NAN, float('inf'), 'text'])
@pytest.mark.parametrize('key', ['coco/bbox_mAP', 'auto'])
def test_what_is_no_score_is_never_the_best(tmp_path, key, value):
    run, lines = train(tmp_path / 'a', [value, 0.0, value, 0.1, value], save_best=key)
    assert best(tmp_path / 'a') == ['best_coco_bbox_mAP_epoch_4.pth']
    assert run.message_hub.get_info('best_score') == 0.1
    assert len(lines) == 3
    assert f'coco/bbox_mAP is {value}, which is no score' in lines[0]
    train(tmp_path / 'b', [value] * 2, save_best=key)
    assert best(tmp_path / 'b') == []


def test_minus_one_may_be_the_least(tmp_path):
    train(tmp_path, [1.0, -1.0, 0.0], rule='less')
    assert best(tmp_path) == ['best_coco_bbox_mAP_epoch_2.pth']


@pytest.mark.parametrize('value', [-1.0, NAN])
def test_early_stopping_passes_over_what_is_no_score(tmp_path, value):
    hook = dict(STOPPING, monitor='coco/bbox_mAP', check_finite=False)
    run, _ = train(tmp_path / 'a', [value] * 6, [hook])
    assert run.epoch == 6
    run, _ = train(tmp_path / 'b', [0.2, value, 0.1, value, 0.1, 0.3], [hook])
    assert run.epoch == 5
    state = torch.load(tmp_path / 'b' / 'epoch_4.pth')['training_state']['loop']
    assert state['early_stopping'] == [dict(wait_count=1, best_score=0.2)]


@pytest.mark.filterwarnings('ignore:Skip early stopping')
def test_a_validation_without_any_detection_is_passed_over(tmp_path, monkeypatch):
    results = iter([{}, dict(bbox_mAP=0.1), {}, dict(bbox_mAP=0.2)])
    monkeypatch.setattr(Scripted, 'compute_metrics', lambda *_: next(results))
    hook = dict(STOPPING, monitor='coco/bbox_mAP', strict=True, patience=1)
    run, _ = train(tmp_path, [None] * 4, [hook])
    assert run.epoch == 4
    assert best(tmp_path) == ['best_coco_bbox_mAP_epoch_4.pth']


def test_a_metric_that_is_not_finite_ends_a_run_whose_hook_says_so(tmp_path):
    hook = dict(STOPPING, monitor='coco/bbox_mAP')
    run, _ = train(tmp_path, [0.2, NAN, 0.3], [hook])
    assert run.epoch == 2
    assert best(tmp_path) == ['best_coco_bbox_mAP_epoch_1.pth']


def test_a_set_without_objects_has_no_best_checkpoint(data, tmp_path):
    """And the run says so before its first step."""
    document = json.loads((data / 'annotations.json').read_text())
    document['annotations'] = []
    path = tmp_path / 'none.json'
    path.write_text(json.dumps(document))
    cfg = config(data, tmp_path / 'work', **{'train_cfg.max_epochs': 1})
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.update(type='RFDETRCocoDataset', ann_file=str(path))
    cfg.val_evaluator = dict(type='RFDETRCocoMetric', ann_file=str(path))
    cfg.default_hooks.health = dict(type='RFDETRHealthHook')
    run = Runner.from_cfg(cfg)
    run.train()
    assert run.message_hub.get_scalar('val/coco/bbox_mAP').current() == -1
    assert best(tmp_path / 'work') == []
    (log,) = (tmp_path / 'work').glob('*/*.log')
    before, _, _ = log.read_text().partition('Epoch(train)')
    assert 'has no object of the classes' in before
    assert 'The validation data has no object at all' in before
