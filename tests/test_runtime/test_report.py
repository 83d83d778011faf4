"""The page on what a detector got right and wrong, from results of anybody."""

import contextlib
import io
import json

import numpy as np
import pytest
from mmdet.registry import METRICS
from mmengine.registry import DefaultScope
from PIL import Image
from rfdetr_report import write_report
from rfdetr_report.__main__ import main
from rfdetr_report.evaluation import best_f1
from rfdetr_runtime import SourceError

from tests.test_evaluation import random_sets
from tests.test_runtime.report_pages import check_page

NAMES = dict(
    mAP='AP', mAP_50='AP50', mAP_75='AP75', mAP_s='AP small', mAP_m='AP medium'
)


def blank(image):
    return np.full((image['height'], image['width'], 3), 90, np.uint8)


def report(folder, document, results, **settings):
    evaluations = write_report(folder, document, results, blank, quiet=True, **settings)
    return evaluations, check_page(folder)


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_numbers_are_those_of_the_metric(tmp_path, kind, seed):
    """With crowds, equal scores, empty images and a class without objects."""
    path, found = random_sets.make_set(tmp_path, seed)
    settings = dict(ann_file=str(path), metric=kind, proposal_nums=(1, 10, 100))
    settings.update(classwise=True, outfile_prefix=str(tmp_path / 'results'))
    with DefaultScope.overwrite_default_scope('mmdet'):
        metric = METRICS.build(dict(type='RFDETRCocoMetric', **settings))
    metric.dataset_meta = dict(classes=random_sets.CLASSES)
    metric.process({}, list(random_sets.samples(found, kind == 'segm')))
    with contextlib.redirect_stdout(io.StringIO()):
        expected = metric.evaluate(len(found))
    results = json.loads((tmp_path / f'results.{kind}.json').read_text())
    document = json.loads(path.read_text())
    evaluations, page = report(tmp_path / 'page', document, results, kinds=[kind])
    overall = evaluations[kind].overall
    for theirs, ours in NAMES.items():
        value = expected[f'coco/{kind}_{theirs}']
        assert overall[ours] == pytest.approx(value, abs=1e-12)
        assert page.tiles()[ours] == f'{value:.3f}'
    for each in evaluations[kind].classes:
        value = expected[f'coco/{each.name}_precision']
        if each.ap is None:
            assert np.isnan(value) and each.name == 'elk'
        else:
            assert each.ap == pytest.approx(value, abs=1e-12)


def test_best_f1_is_that_of_all_scores():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, right = rng.random(30).round(1), rng.random(30) < 0.4
        best = best_f1(scores, right, 20)
        tried = []
        for score in np.unique(scores):
            kept = scores >= score
            precision, recall = right[kept].mean(), right[kept].sum() / 20
            f1 = 2 * precision * recall / max(precision + recall, 1e-9)
            tried.append((f1, score, precision, recall))
        expected = max(tried, key=lambda each: (round(each[0], 12), each[1]))
        found = best.f1, best.threshold, best.precision, best.recall
        assert found == pytest.approx(expected)
    assert best_f1(np.zeros(0), np.zeros(0, bool), 3) is None
    assert best_f1(np.array([0.5]), np.array([False]), 3) is None
    assert best_f1(np.array([0.5]), np.array([False]), 0) is None


def square(image, category, x, **more):
    box = [x, 10, 20, 20]
    more.setdefault('segmentation', [[x, 10, x + 20, 10, x + 20, 30, x, 30]])
    return dict(image_id=image, category_id=category, bbox=box, area=400, **more)


ODD = '<b>"Gämse" & $1</b>'
PATH = 'a/<i>"b" & c\'.png'


def known_case():
    """Right, mixed up, false, missed, in a crowd; and an image without error."""
    document = dict(
        images=[
            dict(id=key, file_name=name, height=60, width=120)
            for key, name in (('x', PATH), (7, 'good.png'), (3, 'empty.png'))
        ],
        categories=[
            dict(id=9, name=ODD),
            dict(id=2, name='cat'),
            dict(id=5, name='no'),
        ],
        annotations=[
            square('x', 9, 0),
            square('x', 9, 25),
            square('x', 2, 50),
            square('x', 2, 75, iscrowd=1),
            square(7, 2, 40),
        ],
    )
    results = [
        square('x', 9, 1, score=0.9),  # right
        square('x', 2, 26, score=0.8),  # a cat where the other is
        square('x', 2, 76, score=0.7),  # in the crowd: does not count
        square('x', 9, 98, score=0.6),  # of nothing
        square('x', 2, 50, score=0.1),  # too weak
        square(7, 2, 40, score=0.95),
    ]
    return document, results


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_matrix_and_worst_pictures_say_what_happened(tmp_path, kind):
    document, results = known_case()
    settings = dict(kinds=[kind], threshold=0.5, title=ODD)
    evaluations, page = report(tmp_path, document, results, **settings)
    rows = {row[0]: row[1:] for row in page.rows}
    assert rows[''] == [ODD, 'cat', 'no', 'missed']
    matrix = page.rows[-4:]
    assert matrix == [
        [ODD, '1', '1', '0', '0'],
        ['cat', '0', '1', '0', '1'],
        ['no', '0', '0', '0', '0'],
        ['false', '1', '0', '0', '0'],
    ]
    assert rows['no'][:1] == ['0'] or page.rows[3][:4] == ['no', '0', '–', '–']
    shown = [each for tag, each in page.tags if tag == 'section']
    assert [(e['data-missed'], e['data-false'], e['data-mixed']) for e in shown] == [
        ('1', '1', '1')
    ]
    assert [each['alt'] for tag, each in page.tags if tag == 'img'] == [PATH] * 2
    assert f'{ODD} 0.60' in page.source.replace('&lt;', '<').replace(
        '&#34;', '"'
    ).replace('&gt;', '>').replace('&amp;', '&')
    shapes = [
        each for tag, each in page.tags if tag == ('path', 'rect')[kind == 'bbox']
    ]
    assert len(shapes) >= 6
    assert evaluations[kind].classes[0].objects == 2


def test_pages_of_little(tmp_path):
    """No detections, nothing right, one class, no objects at all, no pictures."""
    document, results = known_case()
    (numbers,), page = report(tmp_path / '0', document, [])
    assert page.tiles()['AP'] == '0.000'
    assert [row[-1] for row in page.rows[-4:-1]] == ['2', '2', '0']
    _, page = report(tmp_path / '1', document, results[3:4])
    assert page.tiles()['AP'] == '0.000' and 'at score' not in page.tiles()
    document['annotations'] = []
    _, page = report(tmp_path / '2', document, results)
    assert page.tiles()['AP'] == '–'
    document['categories'] = document['categories'][:1]
    for each in document['images']:
        del each['height'], each['width']
    boxes = dict(kinds=['bbox'], threshold=0, quiet=True)
    write_report(tmp_path / '3', document, [results[0]], lambda _: None, **boxes)
    assert 'cannot be read' in check_page(tmp_path / '3').source


def test_of_many_classes_the_confused_ones_are_shown(tmp_path):
    document, results = known_case()
    document['categories'] += [dict(id=100 + i, name=f'c{i}') for i in range(60)]
    document['annotations'] += [square(3, 100 + 40 + i, 0) for i in range(3)]
    results += [square(3, 100 + 40 + i, 0, score=0.9) for i in range(3)]
    _, page = report(tmp_path, document, results, threshold=0.5)
    matrix = [row for row in page.rows if len(row) == 33]
    assert matrix[0][-2:] == ['other classes', 'missed'] and len(matrix) == 33
    counts = np.array([row[1:] for row in matrix[1:]], int)
    assert counts.sum() == 8 and counts[-2, -2] == 3
    assert {'cat', ODD} <= set(matrix[0])


def test_the_command(tmp_path, capsys):
    document, results = known_case()
    document['images'][0]['file_name'] = 'a b.png'
    Image.new('RGB', (120, 60)).save(tmp_path / 'a b.png')
    (tmp_path / 'truth.json').write_text(json.dumps(document))
    (tmp_path / 'found.json').write_text(json.dumps(results))
    files = ['--annotations', str(tmp_path / 'truth.json')]
    files += ['--results', str(tmp_path / 'found.json')]
    places = ['--images', str(tmp_path), '--out', str(tmp_path / 'out')]
    assert main([*files, *places, '--threshold', '0.5', '--max-dets', '5']) == 0
    page = check_page(tmp_path / 'out')
    assert len(page.links) == 2
    said = capsys.readouterr()
    assert said.err == '' and 'index.html' in said.out
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines] == ['bbox', 'segm', 'Look']
    assert f'AP {page.tiles()["AP"]}' in lines[0]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda truth, found: found[1].update(image_id=8), 'detection 2.*image_id.*8'),
        (lambda truth, found: found[1].update(category_id=8), 'category_id.*8'),
        (lambda truth, found: found[0].update(score=np.nan), 'detection 1.*finite'),
        (lambda truth, found: found[0].pop('score'), "detection 1.*'score'"),
        (lambda truth, found: found[0].update(bbox=[1, 2]), 'detection 1'),
        (lambda truth, found: truth['annotations'][2].pop('bbox'), 'object 3'),
        (lambda truth, found: truth['images'][0].pop('id'), "'id'"),
        (lambda truth, found: truth.pop('images'), 'no COCO document'),
        (lambda truth, found: truth['annotations'][4].pop('segmentation'), '1 objects'),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, change, words):
    document, results = known_case()
    change(document, results)
    with pytest.raises(SourceError, match=words):
        report(tmp_path, document, results)


def test_files_that_are_none(tmp_path, capsys):
    (tmp_path / 'cut.json').write_text('[{"image_id": ')
    files = ['--annotations', str(tmp_path / 'cut.json'), '--results', 'none.json']
    assert main([*files, '--images', 'x', '--out', str(tmp_path / 'out')]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'cut.json is no JSON' in line
