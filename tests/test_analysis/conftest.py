import pytest
from mmengine.registry import DefaultScope

from tests.test_precision.conftest import log, pictures  # noqa: F401


@pytest.fixture(autouse=True, scope='session')
def mmdet_scope():
    """Find mmdet's and our parts by their bare names, as every config does."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
