import pytest
import torch
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


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leave out what costs most in a run of two steps."""
    # mmengine writes the config four times a run, each time prettily.
    monkeypatch.setattr(
        'mmengine.config.config.FormatCode', lambda code, **kwargs: (code, False)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
