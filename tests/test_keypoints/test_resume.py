"""A killed run with points ends with the bits of one that was not killed."""

import json
import signal

import pytest
from mmengine.runner import Runner

from tests.test_reliability.project import differences, result, train_in_child

from .project import shrunk_config, write_pictures


def config(data, work_dir, weights, **changes):
    """Two epochs from weights whose precision the first step sets to one."""
    cfg = shrunk_config(data)
    cfg.custom_hooks = []
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'load_from': weights,
            'train_cfg.max_epochs': 2,
            'randomness.seed': 3,
            'optim_wrapper.optimizer.lr': 1e-3,
            **changes,
        }
    )
    return cfg


@pytest.mark.long
def test_precision_is_set_at_the_start_and_not_when_a_run_goes_on(tmp_path):
    data, whole, killed = (tmp_path / name for name in ('data', 'whole', 'killed'))
    data.mkdir()
    write_pictures(data)
    first = shrunk_config(data)
    first.val_dataloader = first.val_evaluator = first.val_cfg = None
    first.custom_hooks, first.default_hooks.checkpoint.save_best = [], None
    Runner.from_cfg(first).train()
    weights = str(data / 'work' / 'epoch_1.pth')
    assert train_in_child(config(data, whole, weights)) == 0
    # In the second epoch, after the first checkpoint.
    event = json.loads((whole / 'events.json').read_text())['count'] * 3 // 4
    exitcode = train_in_child(config(data, killed, weights), event)
    assert exitcode == -signal.SIGKILL
    assert (killed / 'last_checkpoint').is_file()
    # As tools/train.py --resume does.
    assert train_in_child(config(data, killed, None, resume=True)) == 0
    found = result(killed)
    assert differences(result(whole), found) == []
    precision = found['weights']['keypoint_head.embed.2.weight'][4:7]
    assert precision.any()  # learnt, and not set again
    assert 'train/loss_kpt_nll' in found['log']
