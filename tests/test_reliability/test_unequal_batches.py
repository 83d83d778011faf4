"""Processes that have more batches than others wait for nobody who does not come."""

import os
import signal

import pytest
from mmengine.hooks import Hook

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from tests.factory import write_coco
from tests.test_command_line.data_parallel import train

from .project import short_config


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


class Told(Hook):
    """Send SIGTERM to the first process in its n-th validation batch."""

    priority = 'LOW'

    def __init__(self, batch=None):
        self.batch = batch

    def after_val_iter(self, runner, batch_idx, *args, **kwargs):
        if runner.rank == 0 and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGTERM)


def validate(folder, images, processes, hook, **changes):
    """Train with a rate of 0, and validate image by image, everything that can be."""
    if not (folder / 'data').exists():
        write_coco(folder / 'data', range(images))
    work_dir = folder / f'{processes}'
    work_dir.mkdir()
    cfg = short_config(folder / 'data', work_dir)
    cfg.val_dataloader.batch_size = 1
    cfg.val_dataloader.sampler.round_up = False
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.optim_wrapper.paramwise_cfg = dict(lr_encoder=0.0)
    cfg.train_dataloader.batch_size = 1
    cfg.default_hooks.ema.evaluate_base = True
    cfg.default_hooks.bad_data = dict(type='RFDETRBadDataHook')
    cfg.default_hooks.health = dict(type='RFDETRHealthHook')
    cfg.custom_hooks.append(dict(type='RFDETRValLossHook'))
    cfg.merge_from_dict(changes)
    codes, said, _ = train(cfg, hook, processes=processes)
    return work_dir, codes, said


def validated(folder):
    """The numbers of the last validation."""
    path = (folder / 'last_checkpoint').read_text()
    scalars = load_checkpoint_file(path)['message_hub']['log_scalars']
    return {
        name: float(scalar['values'][-1])
        for name, scalar in scalars.items()
        if name.startswith('val/') and 'time' not in name
    }


# 2 images leave the third process without any.
@pytest.mark.parametrize(('images', 'processes'), [long(5, 2), long(7, 3), (2, 3)])
def test_a_validation_gives_the_numbers_of_one_process(images, processes, tmp_path):
    *_, codes, said = validate(tmp_path, images, processes, Told())
    assert codes == [0] * processes, said
    alone, codes, said = validate(tmp_path, images, 1, Told())
    assert codes == [0], said
    expected = validated(alone)
    assert {'val/loss', 'val/coco/bbox_mAP', 'val/base/coco/bbox_mAP'} <= {*expected}
    assert validated(tmp_path / f'{processes}') == pytest.approx(expected, rel=1e-5)


# The last batch of the first process is one that the others do not have.
@pytest.mark.parametrize(('images', 'processes', 'batch'), [long(7, 3, 0), (5, 2, 2)])
def test_a_signal_in_a_validation_ends_all(images, processes, batch, tmp_path):
    folder, codes, said = validate(
        tmp_path, images, processes, Told(batch), **{'train_cfg.max_epochs': 2}
    )
    assert codes == [1] * processes, said
    assert all(text.rstrip().endswith('75') for text in said), said
    checkpoint = load_checkpoint_file(folder / 'interrupted.pth')
    position = checkpoint['training_state']['loop']['position']
    assert position['validation_due'] == (batch == 0)


def test_epochs_of_unequal_length_are_refused_at_the_start(tmp_path):
    _, codes, said = validate(
        tmp_path,
        images=5,
        processes=2,
        hook=Told(),
        **{'train_dataloader.sampler.round_up': False},
    )
    assert codes == [1, 1], said
    for text in said:
        assert '[3, 2] training batches' in text
        assert 'train_dataloader.sampler.round_up=True' in text
