from pathlib import Path

from tests.gpu.conftest import device, exact_float32, skip_without_gpu  # noqa: F401


def pytest_collection_modifyitems(items):
    skip_without_gpu(items, Path(__file__).parent)
