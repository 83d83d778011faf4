"""The guard against non-finite steps leaves overflow of float16 to the loss scale."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr.errors import NonFiniteError
from mmdet_rfdetr.models import RFDETRHead

from .precision_project import project_config, run

GUARD = {'default_hooks.non_finite': dict(type='RFDETRNonFiniteHook')}


def build(config):
    config = Config(copy.deepcopy(config.to_dict()))
    config.merge_from_dict(GUARD)
    return Runner.from_cfg(config)


def test_steps_that_overflow_are_skipped_and_the_run_goes_on(pictures, tmp_path):
    config = project_config(pictures, tmp_path, 'cpu', 'float16')
    # Far above what float16 can hold: the first steps overflow, each halves it.
    config.optim_wrapper.loss_scale = dict(init_scale=2.0**60)
    runner = build(config)
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    assert runner.iter == 2
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**58
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_same_gradient_stops_a_run_that_has_no_scale(pictures, tmp_path):
    runner = build(project_config(pictures, tmp_path, 'cpu', 'bfloat16'))
    weight = runner.model.decoder.norm.weight
    weight.register_hook(lambda gradient: gradient * float('inf'))
    with pytest.raises(NonFiniteError, match='Iteration 1'):
        runner.train()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_a_loss_that_is_not_finite_stops_every_run(
    dtype, pictures, tmp_path, monkeypatch
):
    """Under float16, too: no scale can help there."""
    loss = RFDETRHead.loss_by_feat

    def broken(*args, **kwargs):
        terms = loss(*args, **kwargs)
        return {name: value * float('nan') for name, value in terms.items()}

    monkeypatch.setattr(RFDETRHead, 'loss_by_feat', broken)
    with pytest.raises(NonFiniteError, match='Iteration 1'):
        run(project_config(pictures, tmp_path, 'cpu', dtype), 'train', GUARD)
