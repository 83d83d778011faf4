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
