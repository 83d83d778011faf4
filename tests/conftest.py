"""The plugin comes first, as in every program: MMDetection needs it with mmcv-lite."""

import os

# Two processes on one machine warn unless this is said, and warnings are errors here.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MKL_NUM_THREADS', '1')

import mmdet_rfdetr  # noqa: F401, I001

import sys

import pytest
import torch

from tests.fixtures import REPOSITORY
from tests.interpreter import run
from tests.project import NANO, write_project
from tests.runs import forget_runs

# As the fixtures were made: another number of threads sums in another order, which
# moves single ReLUs and with them gradients.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_earlier_run():
    """A test knows of no run but its own."""
    forget_runs()


@pytest.fixture(scope='session')
def toy_project(tmp_path_factory):
    """The folder of a user's project, with mine.py and pictures in it."""
    folder = tmp_path_factory.mktemp('project')
    write_project(folder, NANO)
    return folder


@pytest.fixture(scope='session')
def toy_checkpoint(toy_project):
    """The project's checkpoint of one epoch, trained with the command of the README."""
    command = [sys.executable, REPOSITORY / 'tools' / 'train.py', 'mine.py']
    result = run(command, cwd=toy_project)
    assert result.returncode == 0, result.stderr
    assert 'warning' not in (result.stdout + result.stderr).lower()
    return toy_project / 'work_dirs' / 'mine' / 'epoch_1.pth'
