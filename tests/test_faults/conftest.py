"""What the data set says."""

import pytest

from mmdet_rfdetr.faults import coco_dataset as coco


@pytest.fixture
def told(monkeypatch):
    """What the data set logs: (text, level)."""
    lines = []
    monkeypatch.setattr(
        coco, 'print_log', lambda text, logger, level: lines.append((text, level))
    )
    return lines
