"""Launchers of several machines, here all on this one, train as one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.test_command_line.test_tools import free_port

# Adam would magnify what rounding makes of gradients near zero.
OPTIONS = [
    '--cfg-options',
    'optim_wrapper.optimizer.type=SGD',
    'optim_wrapper.optimizer.lr=0.3',
    'randomness.seed=1',
]


def launch(project, *arguments, machines=2):
    """Start ``tools/dist_train.sh`` as on each machine; one process on each."""
    script = REPOSITORY / 'tools' / 'dist_train.sh'
    environment = {
        **os.environ,
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        'PYTHONPATH': str(REPOSITORY),
        'CUDA_VISIBLE_DEVICES': '',
        'NNODES': str(machines),
        'MASTER_ADDR': '127.0.0.1',
        'PORT': free_port(),
    }
    return [
        subprocess.Popen(
            ['bash', script, 'mine.py', '1', *map(str, arguments), *OPTIONS],
            cwd=project,
            env=dict(environment, NODE_RANK=str(number)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(machines)
    ]


def end(launched):
    """Wait for all, and return what each of them printed."""
    printed = [machine.communicate(timeout=600)[0] for machine in launched]
    assert not any(machine.returncode for machine in launched), printed
    return printed


@pytest.mark.slow
def test_two_machines_train_and_resume_as_one_process(toy_project, tmp_path):
    two, one = tmp_path / 'two', tmp_path / 'one'
    end(launch(toy_project, '--work-dir', two))
    longer = 'train_cfg.max_epochs=2'
    _, second = end(
        launch(toy_project, '--work-dir', two, '--resume', '--cfg-options', longer)
    )
    # The first machine writes everything.
    assert 'Epoch(train)' not in second
    command = [sys.executable, REPOSITORY / 'tools' / 'train.py', 'mine.py']
    options = [*OPTIONS, longer, 'train_dataloader.batch_size=4']
    alone = run([*command, '--work-dir', one, *options], cwd=toy_project)
    assert alone.returncode == 0, alone.stderr

    def files(folder):
        return sorted(path.name for path in folder.glob('*.*'))

    assert files(one) == files(two)
    found, expected = (
        load_checkpoint_file(folder / 'epoch_2.pth') for folder in (two, one)
    )
    for key in ('state_dict', 'ema_state_dict'):
        for name, tensor in expected[key].items():
            torch.testing.assert_close(found[key][name], tensor, rtol=1e-4, atol=1e-6)
    start = load_checkpoint_file(one / 'epoch_1.pth')['ema_state_dict']
    assert any(
        (tensor - expected['ema_state_dict'][name]).abs().max() > 1e-2
        for name, tensor in start.items()
    )
