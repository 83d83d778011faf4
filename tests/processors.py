"""Processors other than the one that runs the tests."""

import pytest

from mmdet_rfdetr.precision import products


def unknown_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all products computed by PyTorch's operators, as in compiled parts."""
    for fact in ('imitates_bfloat16', 'attends_in_float32', 'multiplies_by_onednn'):
        monkeypatch.setattr(products, fact, lambda: False)
