import pytest
from mmengine.logging import MMLogger

from .project import write_images


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """A folder with pictures and annotations."""
    folder = tmp_path_factory.mktemp('pictures')
    write_images(folder)
    return folder


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
