from pathlib import Path

import pytest
import torch

from ..test_precision.conftest import log, pictures, quick  # noqa: F401


def pytest_collection_modifyitems(items):
    """Skip the tests of this folder where there is no GPU."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason='needs a CUDA GPU'))
        # PyTorch says so when a thread of autograd is the first to use cuBLAS.
        item.add_marker(pytest.mark.filterwarnings('ignore:.*run cuBLAS:UserWarning'))


@pytest.fixture(autouse=True)
def exact_float32():
    """Convolutions of float32 without TF32, which keeps 10 of 23 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def device():
    return torch.device('cuda')
