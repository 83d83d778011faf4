"""The commands train by any runner of mmengine, and scale learning rates."""

import argparse
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_rfdetr.command_line import running as cli
from tests.test_training import test_options

data = test_options.data
settings = test_options.settings


def test_auto_scale_lr_counts_the_images_of_a_step(settings):
    settings.optim_wrapper.accumulative_counts = 4  # of one image each
    settings.auto_scale_lr = dict(enable=True, base_batch_size=16)
    settings.val_dataloader = settings.val_cfg = settings.val_evaluator = None
    settings.default_hooks.checkpoint.interval = -1
    runner = Runner.from_cfg(settings)
    cli.train(runner)
    group = runner.optim_wrapper.param_groups[0]
    assert group['initial_lr'] == pytest.approx(1e-4 * 4 / 16)
    # A copy of the config in the work folder trains the same.
    assert runner.cfg.auto_scale_lr.base_batch_size == 16


def test_mmengines_other_runner(settings):
    settings.update(runner_type='FlexibleRunner', env_cfg={})
    cli.run(settings, cli.train, trust_checkpoint=False)
    assert Path(settings.work_dir, 'epoch_1.pth').is_file()


@pytest.mark.parametrize('by_flag', [True, False])
def test_auto_scale_lr_needs_a_base(by_flag, capsys):
    made = Config(dict(model={}, auto_scale_lr=dict(enable=not by_flag)))
    with pytest.raises(SystemExit):
        cli.prepare_auto_scale_lr(argparse.ArgumentParser(), made, enable=by_flag)
    assert 'auto_scale_lr.base_batch_size=16' in capsys.readouterr().err
