import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ..test_precision.conftest import log, pictures  # noqa: F401


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


COMPILING = (
    # Inductor looks at ``.grad`` of what is not a leaf, and hides the warning.
    'ignore:The .grad attribute of a Tensor that is not',
    'ignore:.torch.jit.script_method. is deprecated',
    # PyTorch recommends TF32, which keeps 10 of 23 bits.
    'ignore:TensorFloat32 tensor cores',
    # Inductor says so where a softmax is as small as in these models.
    r'ignore:\s*Online softmax is disabled',
    # It makes an empty graph for its memory, and hides the warning.
    'ignore:The CUDA Graph is empty',
)
"""Warnings of PyTorch when it compiles."""
