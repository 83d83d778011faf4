import pytest
from mmengine.logging import MMLogger

from tests.factory import write_coco


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """A folder with pictures and annotations."""
    return write_coco(tmp_path_factory.mktemp('pictures'), [1, 2, 1, 2])


@pytest.fixture
def log(monkeypatch):
    """The lines that are logged during a test."""
    lines = []
    original = MMLogger.callHandlers

    def record(logger, entry):
        lines.append(entry.getMessage())
        original(logger, entry)

    monkeypatch.setattr(MMLogger, 'callHandlers', record)
    return lines
