from pathlib import Path

from tests.gpu.conftest import (  # noqa: F401
    device,
    exact_float32,
    log,
    no_waiting,
    pictures,
    skip_without_gpu,
)


def pytest_collection_modifyitems(items):
    skip_without_gpu(items, Path(__file__).parent)


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
