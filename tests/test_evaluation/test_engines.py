"""Every engine computes what mmdet's metric computes, to the last digit."""

import json
import re
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.logging import MMLogger

from mmdet_rfdetr.errors import MissingPackageError, SettingError
from mmdet_rfdetr.evaluation import averages, coco_metric, engines
from mmdet_rfdetr.evaluation.engines import ENGINES, choose_engine
from mmdet_rfdetr.evaluation.predictions import KINDS
from tests.test_evaluation import random_sets
from tests.test_evaluation.random_sets import evaluate, make_set, rounded

METRICS_TO_TRY = [name for name in KINDS if KINDS[name].iou_type in ('bbox', 'segm')]


@pytest.fixture(params=ENGINES)
def engine(request):
    try:
        ENGINES[request.param]()
    except MissingPackageError as error:
        pytest.skip(str(error))
    return request.param


def same(found, expected):
    """Whether all numbers are equal to 1e-12, absent ones included."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    return True


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('metric', METRICS_TO_TRY)
def test_the_twelve_numbers_are_those_of_mmdet(
    tmp_path, monkeypatch, engine, metric, seed
):
    path, found = make_set(tmp_path, seed)
    settings = dict(ann_file=str(path), metric=[metric])
    theirs, expected = evaluate(monkeypatch, found, type='CocoMetric', **settings)
    ours, stats = evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', engine=engine, **settings
    )
    assert rounded(ours) == theirs
    assert same(stats, expected)
    assert 0.02 < stats[0][0] < 0.95
    assert len(set(stats[0])) >= 9


@pytest.mark.parametrize(
    'changes',
    [
        dict(iou_thrs=np.array([0.3, 0.5, 0.75])),
        dict(metric_items=['mAP_50', 'AR_s@1000']),
    ],
)
def test_settings_mean_the_same(tmp_path, monkeypatch, engine, changes):
    path, found = make_set(tmp_path)
    settings = dict(ann_file=str(path), metric=METRICS_TO_TRY, **changes)
    theirs, expected = evaluate(monkeypatch, found, type='CocoMetric', **settings)
    ours, stats = evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', engine=engine, **settings
    )
    assert rounded(ours) == theirs
    assert same(stats, expected)


def test_numbers_of_detections_give_recalls_their_names(tmp_path, monkeypatch, engine):
    """mmdet names them after its default, whatever they are."""
    path, found = make_set(tmp_path)
    settings = dict(
        ann_file=str(path), metric=METRICS_TO_TRY, proposal_nums=(100, 1, 10)
    )
    theirs, expected = evaluate(monkeypatch, found, type='CocoMetric', **settings)
    ours, stats = evaluate(
        monkeypatch, found, type='RFDETRCocoMetric', engine=engine, **settings
    )
    assert same(stats, expected)
    theirs = {
        name.replace('@1000', '@last').replace('@100', '@1').replace('@300', '@10')
        for name in theirs
    }
    assert {name.replace('@100', '@last') for name in ours} == theirs


def dense_scene(folder, rows=12):
    """A picture of rows x rows objects of one class, and all of them."""
    boxes = [[30 * i, 30 * j, 20, 20] for i in range(rows) for j in range(rows)]
    document = dict(
        images=[dict(id=1, file_name='a.png', height=400, width=400)],
        categories=[dict(id=1, name='cell')],
        annotations=[
            dict(id=n, image_id=1, category_id=1, bbox=box, area=400, iscrowd=0)
            for n, box in enumerate(boxes, 1)
        ],
    )
    path = folder / 'dense.json'
    path.write_text(json.dumps(document))
    boxes = np.array(boxes)
    return path, {1: (boxes, np.zeros(len(boxes), int), np.ones(len(boxes)))}


@pytest.mark.parametrize(
    'numbers, bound',
    [
        (None, 100),
        ((100, 300, 1000), 1000),
        ((1, 10, 1000), 1000),
        ((144,), 144),
        ((120, 100), 120),
        ([1, 2, 3, 50], 50),
    ],
)
def test_the_largest_number_of_detections_bounds_every_precision(
    tmp_path, monkeypatch, engine, numbers, bound
):
    path, found = dense_scene(tmp_path)
    monkeypatch.setattr(random_sets, 'CLASSES', ('cell',))
    result, _ = evaluate(
        monkeypatch,
        found,
        type='RFDETRCocoMetric',
        ann_file=str(path),
        engine=engine,
        metric=['bbox', 'proposal'],
        classwise=True,
        proposal_nums=numbers,
    )
    share = min(1, bound / 144)
    # Recalls of 0, 0.01 ... 1.
    assert result['coco/bbox_mAP'] == pytest.approx((int(100 * share) + 1) / 101)
    if numbers is not None:
        assert result['coco/bbox_mAP_50'] == result['coco/bbox_mAP']
        assert result['coco/cell_precision'] == result['coco/bbox_mAP']
    for number in numbers or (100, 300, 1000):
        assert result[f'coco/AR@{number}'] == pytest.approx(min(1, number / 144))


def test_the_output_is_that_of_mmdet(tmp_path, monkeypatch, capsys, engine):
    path, found = make_set(tmp_path, category_ids=(1, 2, 5, 6, 9))
    settings = dict(ann_file=str(path), metric=METRICS_TO_TRY, classwise=True)
    logger = SimpleNamespace(info=print, log=lambda _, text: print(text))
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    outputs = []
    for kind in (dict(type='CocoMetric'), dict(type='RFDETRCocoMetric', engine=engine)):
        capsys.readouterr()
        evaluate(monkeypatch, found, **kind, **settings)
        outputs.append(capsys.readouterr().out.partition('Evaluating bbox')[2])
    # pycocotools says 'index created!' of the results, which another engine has not.
    expected, ours = (
        re.sub(r't=\d+\.\d+s\)\.?|.*index.*\n', '', output) for output in outputs
    )
    assert ours == expected
    assert '| bee      |' in ours


@pytest.mark.parametrize('at_once', [1, 2, 4])
def test_classes_that_are_counted_one_after_the_other_give_the_same(
    tmp_path, monkeypatch, capsys, engine, at_once
):
    path, found = make_set(tmp_path)
    settings = dict(
        type='RFDETRCocoMetric',
        ann_file=str(path),
        engine=engine,
        metric=METRICS_TO_TRY,
        classwise=True,
    )
    expected, together = evaluate(monkeypatch, found, **settings)
    printed = capsys.readouterr().out
    monkeypatch.setattr(averages, 'CLASSES_AT_ONCE', at_once)
    ours, stats = evaluate(monkeypatch, found, **settings)
    assert ours == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert same(stats, together)
    for output in (printed, capsys.readouterr().out):
        assert output.count('Running per image evaluation') == len(METRICS_TO_TRY)


@pytest.mark.parametrize('metric', ['bbox', 'proposal'])
def test_memory_is_that_of_a_few_classes(tmp_path, monkeypatch, engine, metric):
    names = tuple(f'class {number}' for number in range(400))
    path, found = dense_scene(tmp_path, rows=3)
    document = json.loads(path.read_text())
    document['categories'] = [dict(id=i, name=name) for i, name in enumerate(names)]
    path.write_text(json.dumps(document))
    monkeypatch.setattr(random_sets, 'CLASSES', names)
    curves = []
    count = averages.count

    def spy(evaluator):
        accumulate = evaluator.accumulate

        def accumulate_and_look():
            accumulate()
            curves.append(evaluator.eval['precision'])

        evaluator.accumulate = accumulate_and_look
        count(evaluator)

    settings = dict(type='RFDETRCocoMetric', ann_file=str(path), engine=engine)
    with monkeypatch.context() as patch:
        patch.setattr(coco_metric, 'count', spy)
        evaluate(monkeypatch, found, metric=metric, **settings)
    at_once = [each.shape[2] for each in curves]
    assert at_once == ([1] if metric == 'proposal' else [128, 128, 128, 16])
    tracemalloc.start()
    try:
        evaluate(monkeypatch, found, metric=metric, **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The curves and scores of all classes, as pycocotools makes them, are 116 MB.
    assert peak < 60e6


def test_ids_of_any_kind_and_size(tmp_path, monkeypatch, engine):
    """Ids are counted anew: texts and huge numbers fit into no float array."""
    path, found = make_set(tmp_path)
    settings = dict(type='RFDETRCocoMetric', engine=engine)
    _, expected = evaluate(monkeypatch, found, ann_file=str(path), **settings)
    for rename in (lambda key: f'image-{key:04d}', lambda key: 2**53 + key):
        document = json.loads(path.read_text())
        for image in document['images']:
            image['id'] = rename(image['id'])
        for annotation in document['annotations']:
            annotation['image_id'] = rename(annotation['image_id'])
        other = tmp_path / 'other.json'
        other.write_text(json.dumps(document))
        renamed = {rename(key): value for key, value in found.items()}
        _, stats = evaluate(monkeypatch, renamed, ann_file=str(other), **settings)
        assert same(stats, expected)


def test_the_last_engine_that_is_installed_is_the_default(monkeypatch):
    def missing():
        raise MissingPackageError('pip install faster')

    said = []
    monkeypatch.setattr(engines, 'ENGINES', {'first': int, 'second': str})
    monkeypatch.setattr(engines, 'print_log', lambda text, **_: said.append(text))
    assert choose_engine('auto') == ''
    engines.ENGINES['third'] = missing
    engines._log_once.cache_clear()
    assert choose_engine('auto') == choose_engine('auto') == ''
    assert said == ['pip install faster']
    assert choose_engine('first') == 0
    with pytest.raises(MissingPackageError):
        choose_engine('third')
    with pytest.raises(SettingError, match='second'):
        choose_engine('fourth')
