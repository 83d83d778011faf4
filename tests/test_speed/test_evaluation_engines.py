"""The engine that is added; ``tests/test_evaluation`` compares its numbers."""

import sys

import pytest

from mmdet_rfdetr.errors import MissingPackageError
from mmdet_rfdetr.evaluation.engines import choose_engine
from mmdet_rfdetr.speed.evaluation_engines import UltrafastEval


def test_it_is_the_default_where_it_is_installed():
    pytest.importorskip('ultrafast_pycocotools')
    assert choose_engine('auto') is UltrafastEval


def test_without_its_package_there_is_another(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ultrafast_pycocotools', None)
    assert choose_engine('auto') is choose_engine('pycocotools')
    with pytest.raises(MissingPackageError, match='pip install ultrafast-pycocotools'):
        choose_engine('ultrafast')
