"""The recipe runs in mmengine's own loop, with mmengine's own checkpoints."""

import pytest
import torch
from mmengine.hooks import EMAHook

from ..toy import runner


def build(folder, epochs, resume=False):
    run = runner(
        folder,
        accumulation=2,
        epochs=epochs,
        scheduler=dict(type='RFDETRLR', preset='cosine', convert_to_iter_based=True),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best='weight', rule='greater'),
            param_scheduler=dict(type='RFDETRParamSchedulerHook'),
        ),
    )
    run._resume = resume
    return run


def average(run):
    (hook,) = (hook for hook in run.hooks if isinstance(hook, EMAHook))
    return hook.ema_model


def test_a_run_validates_its_average_and_is_resumed(tmp_path):
    whole = build(tmp_path / 'whole', epochs=4)
    whole.train()
    scores, _ = whole.message_hub.get_scalar('val/weight').data
    averaged = average(whole).module.weight.item()
    assert scores[-1] == averaged != whole.model.weight.item()
    # Ten batches are five steps.
    assert average(whole).steps == 20
    rates, _ = whole.message_hub.get_scalar('train/lr').data
    assert rates[0] == rates[1] > rates[2]
    assert list((tmp_path / 'whole').glob('best_weight_*.pth'))

    half = build(tmp_path / 'halves', epochs=4)
    half.train_loop._max_epochs = 2
    half.train()
    rest = build(tmp_path / 'halves', epochs=4, resume=True)
    rest.train()
    assert rest.epoch == 4
    assert torch.equal(rest.model.weight, whole.model.weight)
    found, expected = average(rest).state_dict(), average(whole).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    again, _ = rest.message_hub.get_scalar('train/lr').data
    assert again.tolist() == pytest.approx(rates.tolist())
