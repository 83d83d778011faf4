"""The plugin comes first, as in every program: MMDetection needs it with mmcv-lite."""

import gc
import os
import random
import signal
import sys

# Two processes on one machine warn unless this is said, and warnings are errors here.
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MKL_NUM_THREADS', '1')

import mmdet_rfdetr  # noqa: F401, I001

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from tests.factory import write_project
from tests.fixtures import REPOSITORY
from tests.runs import forget_runs

# What the tools import from beside them, for those that run in this process.
sys.path.append(str(REPOSITORY / 'tools'))

# As the fixtures were made: another number of threads sums in another order, which
# moves single ReLUs and with them gradients.
torch.set_num_threads(1)

# Modules whose tests start interpreters, train whole runs or build large models. What
# they promise in full, quicker modules promise in part; these are not marked "quick".
HEAVY = {
    'test_compat',
    'test_guest',
    'test_runtime/test_inference_api',
    'test_live_official',
    'test_packaging',
    'test_wings',
    'test_benchmark/test_benchmark',
    'test_checkpoints/test_fuzz',
    'test_checkpoints/test_official_loader',
    'test_command_line/test_main',
    'test_command_line/test_tool_errors',
    'test_command_line/test_tools',
    'test_command_line/test_train_on',
    'test_demo/test_golden_training',
    'test_deploy/test_exporting',
    'test_deploy/test_in_place',
    'test_deploy/test_low_precision',
    'test_deploy/test_readers',
    'test_evaluation/test_engines',
    'test_formats/test_channels',
    'test_formats/test_damaged',
    'test_models/test_fixture_parity',
    'test_analysis/test_precision_resume',
    'test_reliability/test_damaged_resume',
    'test_reliability/test_interruption',
    'test_reliability/test_resume',
    'test_reliability/test_two_processes',
    'test_reliability/test_unequal_batches',
    'test_search/test_export',
    'test_search/test_runs',
    'test_segmentation/test_fixture_parity',
    'test_speed/test_allocator',
    'test_speed/test_compiled',
    'test_speed/test_cuda_graphs',
    'test_training/test_options',
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as quick what has no other mark and does not lie in a heavy module."""
    folder = Path(__file__).parent
    for item in items:
        module = item.path.relative_to(folder).with_suffix('').as_posix()
        marks = {mark.name for mark in item.iter_markers()}
        if module not in HEAVY and not marks & {'long', 'slow'}:
            item.add_marker('quick')


def pytest_collection_finish():
    """Keep what the imports made out of the search for garbage.

    mmengine searches whenever a data set is built: a third of a second for all the
    modules, and nothing for what a test has made.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope='session')
def configs_as_they_are():
    """mmengine writes the config of a run four times, and lays it out each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            'mmengine.config.config.FormatCode', lambda code, **kwargs: (code, False)
        )
        yield


@pytest.fixture(autouse=True, scope='session')
def interruptible():
    """Hear SIGINT, which a shell lets what it runs in the background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_earlier_test():
    """A test knows of no run but its own, and draws the same numbers in any order."""
    forget_runs()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)
    # torch's exporter of TorchScript leaves it off when it fails.
    torch.set_autocast_cache_enabled(True)


@pytest.fixture(scope='session')
def toy_project(tmp_path_factory):
    """The folder of a user's project, with mine.py and pictures in it."""
    folder = tmp_path_factory.mktemp('project')
    write_project(folder)
    return folder


@pytest.fixture(scope='session')
def toy_checkpoint(toy_project):
    """The checkpoint of that project after one epoch of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy_project)
        cfg = Config.fromfile('mine.py')
        cfg.work_dir = str(toy_project / 'trained')
        Runner.from_cfg(cfg).train()
    forget_runs()
    return toy_project / 'trained' / 'epoch_1.pth'
