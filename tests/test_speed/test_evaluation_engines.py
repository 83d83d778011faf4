"""The engine that is added; ``tests/test_evaluation`` compares its numbers."""

import json
import sys

import pytest

from mmdet_rfdetr.errors import MissingPackageError
from mmdet_rfdetr.evaluation.engines import choose_engine
from mmdet_rfdetr.speed.evaluation_engines import LeanEval, UltrafastEval
from tests.test_evaluation.random_sets import evaluate, make_set


def test_it_is_the_default_where_it_is_installed():
    pytest.importorskip('ultrafast_pycocotools')
    assert choose_engine('auto') is UltrafastEval


def test_without_its_package_there_is_another(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ultrafast_pycocotools', None)
    assert choose_engine('auto') is choose_engine('pycocotools')
    with pytest.raises(MissingPackageError, match='pip install ultrafast-pycocotools'):
        choose_engine('ultrafast')


def test_pycocotools_remembers_nothing_of_what_is_not_there(tmp_path, monkeypatch):
    """300 images and 10,000 classes would be millions of empty lists."""
    path, found = make_set(tmp_path)
    sizes = []
    evaluate_image = LeanEval.evaluateImg

    def spy(self, *arguments):
        sizes.append(len(self._gts) + len(self._dts))
        return evaluate_image(self, *arguments)

    monkeypatch.setattr(LeanEval, 'evaluateImg', spy)
    settings = dict(ann_file=str(path), metric=['bbox', 'proposal'])
    evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', engine='pycocotools', **settings
    )
    objects = json.loads(path.read_text())['annotations']
    pairs = {(each['image_id'], each['category_id']) for each in objects}
    pairs_found = sum(len(set(labels.tolist())) for _, labels, _ in found.values())
    assert set(sizes) == {len(pairs) + pairs_found}
