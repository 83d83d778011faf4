"""Best checkpoint and early stopping do what the recipe asks for, in both loops."""

import pytest
import torch

from ..toy import Scripted, runner

EARLY_STOPPING = dict(
    type='EarlyStoppingHook',
    monitor='coco/bbox_mAP',
    rule='greater',
    patience=10,
    min_delta=0.001,
    strict=True,
)
NAN = float('nan')
CHECKPOINT = dict(interval=1, save_best='coco/bbox_mAP', rule='greater')
# mmengine's loop, and that of the shipped configs.
LOOPS = {
    'EpochBasedTrainLoop': 'CheckpointHook',
    'RFDETRTrainLoop': 'RFDETRCheckpointHook',
}


@pytest.fixture(params=LOOPS)
def loop(request):
    return request.param


def train(work_dir, loop, scores, hooks=()):
    run = runner(
        work_dir,
        [dict(type='RFDETREMAHook'), *hooks],
        epochs=len(scores),
        loop=loop,
        metric=Scripted(scores),
        default_hooks=dict(checkpoint=dict(CHECKPOINT, type=LOOPS[loop])),
    )
    run.train()
    return run


def test_best_checkpoint_holds_the_average_of_the_best_epoch(tmp_path, loop):
    train(tmp_path, loop, [0.1, 0.3, 0.3, 0.2])
    (best,) = tmp_path.glob('best_coco_bbox_mAP_epoch_*.pth')
    assert best.name == 'best_coco_bbox_mAP_epoch_2.pth'  # strictly better only
    best, second = (
        torch.load(path, weights_only=False)
        for path in (best, tmp_path / 'epoch_2.pth')
    )
    for key in ('state_dict', 'ema_state_dict'):
        assert best[key].keys() == second[key].keys()
        for name, value in best[key].items():
            assert torch.equal(value, second[key][name])
    assert best['state_dict']['weight'] != best['ema_state_dict']['module.weight']


def test_early_stopping_waits_for_ten_evaluations_without_progress(tmp_path, loop):
    scores = [0.1, 0.2] + [0.2005] * 20
    run = train(tmp_path, loop, scores, [dict(EARLY_STOPPING)])
    assert run.epoch == 2 + 10


def test_small_progress_is_progress_when_it_adds_up(tmp_path, loop):
    scores = [0.1 + 0.0002 * epoch for epoch in range(15)]
    run = train(tmp_path, loop, scores, [dict(EARLY_STOPPING)])
    assert run.epoch == 15


def test_a_misspelt_metric_stops_the_run(tmp_path, loop):
    hook = dict(EARLY_STOPPING, monitor='coco/bbox_map')
    with pytest.raises(RuntimeError, match='coco/bbox_map'):
        train(tmp_path, loop, [0.1], [hook])


def train_resumably(folder, scores, **checkpoint):
    hook = dict(type='RFDETRCheckpointHook', interval=1, save_best='coco/bbox_mAP')
    run = runner(
        folder,
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
    run, lines = train_resumably(
        tmp_path / 'a', [value, 0.0, value, 0.1, value], save_best=key
    )
    assert best(tmp_path / 'a') == ['best_coco_bbox_mAP_epoch_4.pth']
    assert run.message_hub.get_info('best_score') == 0.1
    assert len(lines) == 3
    assert f'coco/bbox_mAP is {value}, which is no score' in lines[0]
    train_resumably(tmp_path / 'b', [value] * 2, save_best=key)
    assert best(tmp_path / 'b') == []


def test_minus_one_may_be_the_least(tmp_path):
    train_resumably(tmp_path, [1.0, -1.0, 0.0], rule='less')
    assert best(tmp_path) == ['best_coco_bbox_mAP_epoch_2.pth']
