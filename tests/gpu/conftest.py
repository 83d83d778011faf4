import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ..test_precision.conftest import log, pictures  # noqa: F401


def skip_without_gpu(items, folder):
    """Skip the tests of a folder where there is no GPU."""
    for item in items:
        if folder not in item.path.parents:
            continue
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='needs a CUDA GPU'))
        # PyTorch says so when a thread of autograd is the first to use cuBLAS.
        item.add_marker(pytest.mark.filterwarnings('ignore:.*run cuBLAS:UserWarning'))


def pytest_collection_modifyitems(items):
    skip_without_gpu(items, Path(__file__).parent)


@pytest.fixture(autouse=True)
def exact_float32():
    """Convolutions of float32 without TF32, which keeps 10 of 23 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def no_waiting():
    """Context in which the host may not wait for the GPU."""

    @contextmanager
    def context():
        with warnings.catch_warnings():
            # PyTorch calls this a prototype.
            warnings.simplefilter('ignore', UserWarning)
            torch.cuda.set_sync_debug_mode('error')
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode('default')

    return context


@pytest.fixture
def device():
    return torch.device('cuda')
