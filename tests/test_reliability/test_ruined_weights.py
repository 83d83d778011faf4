"""Weights that are not finite never take the place of a good checkpoint."""

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError
from tests import toy
from tests.toy import Scripted

from .test_checkpoint_hook import HOOK, files, last

NAN, INF = float('nan'), float('inf')


class Ruin(Hook):
    """Spoil something in the last iteration of the second epoch."""

    def __init__(self, what):
        self.what = what

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != 19:
            return
        optimizer = runner.optim_wrapper.optimizer
        if self.what == 'moments':
            optimizer.state[runner.model.weight]['exp_avg'].fill_(NAN)
        elif self.what == 'a moment that stops learning':
            optimizer.state[runner.model.weight]['exp_avg_sq'].fill_(INF)
        elif self.what == 'rate':
            optimizer.param_groups[0]['lr'] = INF
        elif self.what == 'a buffer':
            runner.model.seen.fill_(NAN)
        elif self.what == 'average':
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.ema_model.module.weight.data.fill_(NAN)


class Finite(Hook):
    """The losses are finite until the run ends."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert outputs['loss'].isfinite()


def build(folder, *hooks, scores=(0.1, 0.3, 0.2), **checkpoint):
    run = toy.runner(
        folder,
        [dict(type='RFDETREMAHook'), Finite(), *hooks],
        epochs=len(scores),
        metric=Scripted(scores),
        default_hooks=dict(checkpoint=dict(HOOK, **checkpoint)),
    )
    run.optim_wrapper['optimizer'] = dict(type='AdamW', lr=0.01)
    return run


RUINS = {
    'moments': 'state_dict.weight',
    'a moment that stops learning': 'optimizer.state.0.exp_avg_sq',
    'rate': 'state_dict.weight',
    'a buffer': 'state_dict.seen',
    'average': 'state_dict.weight',
}


@pytest.mark.parametrize('what', RUINS)
def test_the_last_checkpoint_stays_and_is_resumed(what, tmp_path):
    with pytest.raises(CheckpointError) as raised:
        build(tmp_path, Ruin(what)).train()
    message = str(raised.value)
    assert 'are not finite any more' in message
    assert f'the first is {RUINS[what]}: ' in message
    assert f'{tmp_path}/epoch_1.pth: go on with --resume' in message
    assert files(tmp_path) == [
        'best_coco_bbox_mAP_epoch_1.pth',
        'epoch_1.pth',
        'last_checkpoint',
    ]
    # As the message says: from its weights, and without the accident from it.
    run = build(tmp_path / 'anew', scores=(0.1,))
    run._load_from = f'{tmp_path}/epoch_1.pth'
    run.train()
    run = build(tmp_path, scores=(0.1, 0.2, 0.3))
    run._resume = True
    run.val_loop.evaluator.metrics[0].scores = iter([0.2, 0.3])
    run.train()
    assert load_checkpoint_file(last(tmp_path))['meta']['epoch'] == 3


def test_the_best_checkpoint_stays(tmp_path):
    """With a longer interval the best one is the first that would be written."""
    with pytest.raises(CheckpointError, match='no earlier checkpoint of this run'):
        build(tmp_path, Ruin('moments'), interval=3).train()
    best = load_checkpoint_file(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth')
    assert best['state_dict']['weight'].isfinite().all()
    assert files(tmp_path) == ['best_coco_bbox_mAP_epoch_1.pth']


class Mask(Hook):
    """A buffer that is infinite on purpose, from the start."""

    priority = 'HIGHEST'

    def before_run(self, runner):
        runner.model.register_buffer('mask', torch.tensor([0.0, -INF]))


def test_a_buffer_that_is_infinite_on_purpose_is_saved(tmp_path):
    build(tmp_path, Mask(), scores=(0.1,)).train()
    saved = load_checkpoint_file(last(tmp_path))
    assert saved['state_dict']['mask'].isneginf().any()
