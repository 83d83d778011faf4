"""Names of the metrics that choose a checkpoint and stop a run are looked at."""

import json

import pytest
from mmdet.registry import METRICS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_rfdetr.analysis.metric_names import check_metric_names
from mmdet_rfdetr.errors import SettingError
from tests import toy
from tests.toy import Scripted

from ..factory import CLASSES, project_config, write_coco

STOPPING = dict(type='EarlyStoppingHook', rule='greater', patience=2, min_delta=0.001)
HEALTH = dict(type='RFDETRHealthHook')


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
        hook = dict(type='CheckpointHook', save_best='coco/bbox_mAP', rule='greater')
        return toy.runner(
            tmp_path,
            [HEALTH, *hooks],
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
    checkpoint = dict(type='CheckpointHook', save_best=key, rule='greater')
    run = toy.runner(
        tmp_path,
        [HEALTH, *hooks],
        metric=metric,
        default_hooks=dict(checkpoint=checkpoint),
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


def test_a_set_without_objects_is_told_before_the_first_step(data, tmp_path):
    document = json.loads((data / 'annotations.json').read_text())
    document['annotations'] = []
    path = tmp_path / 'none.json'
    path.write_text(json.dumps(document))
    cfg = project_config(data, tmp_path / 'work')
    cfg.val_dataloader.dataset.ann_file = cfg.val_evaluator.ann_file = str(path)
    cfg.default_hooks.health = HEALTH
    run = Runner.from_cfg(cfg)
    run.train()
    assert run.message_hub.get_scalar('val/coco/bbox_mAP').current() == -1
    (log,) = (tmp_path / 'work').glob('*/*.log')
    before, _, _ = log.read_text().partition('Epoch(train)')
    assert 'The validation data has no object at all' in before
