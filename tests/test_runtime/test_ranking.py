"""Average precision of some of the images, its error, and the order of models."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rfdetr_family import ranking
from rfdetr_family.matches import Matches
from scipy.stats import kendalltau

LIMIT = 100
PARAMS = COCOeval(iouType='bbox').params


def index(images, classes, annotations):
    coco = COCO()
    coco.dataset = dict(
        images=[dict(id=image, height=100, width=100) for image in images],
        categories=[dict(id=label) for label in range(classes)],
        annotations=annotations,
        info={},
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def drawn(seed, images=46, classes=4, objects=7, detections=30):
    """Objects, some of them crowds and one class without any; detections with ties."""
    rng = np.random.default_rng(seed)
    annotations, rows = [], []
    for image in range(images):
        for _ in range(rng.integers(objects)):
            corner, side = rng.uniform(0, 60, 2), rng.uniform(10, 40, 2)
            label = int(rng.integers(classes - 1))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=label,
                    bbox=[*corner, *side],
                    area=float(side.prod()),
                    iscrowd=int(rng.random() < 0.15),
                )
            )
            for _ in range(rng.integers(3)):
                moved = [*corner + rng.normal(0, 3, 2), *side + rng.normal(0, 3, 2)]
                score = round(0.6 + 0.4 * rng.random(), 2)
                rows.append([image, *moved, score, label])
        for _ in range(rng.integers(detections)):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(5, 40, 2)]
            score = round(0.8 * rng.random(), 1)
            rows.append([image, *box, score, rng.integers(classes)])
    return index(range(images), classes, annotations), rng.permutation(np.array(rows))


def by_pycocotools(truth, detections, images):
    """Average precision on some images."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(detections), 'bbox')
        evaluator.params.imgIds = list(images)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats[0]


@pytest.fixture(scope='module')
def case():
    truth, detections = drawn(seed=1)
    matches = Matches.of(truth, detections, PARAMS.iouThrs, LIMIT)
    return truth, detections, matches


def test_average_precision_is_that_of_pycocotools(case):
    truth, detections, matches = case
    found = matches.average_precision(PARAMS.recThrs)
    assert 0.1 < found < 0.9
    expected = by_pycocotools(truth, detections, range(46))
    assert found == pytest.approx(expected, abs=1e-12)


def test_leaving_images_out_is_an_evaluation_of_the_others(case):
    truth, detections, matches = case
    values = matches.jackknife(PARAMS.recThrs)
    assert len(values) == 20
    for group in (0, 7, 19):
        rest = [image for image in range(46) if image % 20 != group]
        expected = by_pycocotools(truth, detections, rest)
        assert values[group] == pytest.approx(expected, abs=1e-12)


def test_only_so_many_detections_of_a_class_in_an_image_count():
    truth, detections = drawn(seed=3, images=3, detections=400)
    matches = Matches.of(truth, detections, PARAMS.iouThrs, 20)
    pairs = np.stack((matches.images, matches.labels))
    assert np.unique(pairs, axis=1, return_counts=True)[1].max() == 20
    full = Matches.of(truth, detections, PARAMS.iouThrs, LIMIT)
    found = full.average_precision(PARAMS.recThrs)
    expected = by_pycocotools(truth, detections, range(3))
    assert found == pytest.approx(expected, abs=1e-12)


def test_without_detections_or_objects_it_is_zero():
    truth, _ = drawn(seed=1, images=3)
    for data in (truth, index(range(3), 4, [])):
        matches = Matches.of(data, np.zeros((0, 7)), PARAMS.iouThrs, LIMIT)
        assert matches.average_precision(PARAMS.recThrs) == 0.0
        assert len(matches.jackknife(PARAMS.recThrs)) == 3


def test_the_error_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(0).normal(size=20)
    without = (values.sum() - values) / 19
    assert ranking.standard_error(without) == pytest.approx(
        values.std(ddof=1) / 20**0.5
    )
    assert np.isnan(ranking.standard_error([0.3]))


def test_the_error_of_a_difference_is_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=20)
    first, second = hard + 0.01 * rng.normal(size=(2, 20))
    assert ranking.paired_error(first, second) < ranking.standard_error(first) / 20


def test_the_front_is_what_nothing_cheaper_is_as_good_as():
    costs, gains = [3, 1, 2, 2, 4, 1], [0.5, 0.2, 0.4, 0.3, 0.5, 0.1]
    assert ranking.front_of(costs, gains) == [1, 2, 0]


def test_what_is_as_good_within_its_error_may_be_best():
    costs, gains = [1, 2, 3], [0.30, 0.29, 0.20]
    noise = np.random.default_rng(0).normal(scale=0.005, size=(3, 20))
    replicates = np.array(gains)[:, None] + noise
    assert ranking.may_be_best(costs, gains, replicates) == [0, 1]
    assert ranking.may_be_best(costs, gains, replicates, errors=0) == [0]
    named = (
        dict(zip('abc', gains, strict=True)),
        dict(zip('abc', replicates, strict=True)),
    )
    assert ranking.neighbours('a', *named) == ['b']
    assert ranking.neighbours('c', *named) == []


def test_the_agreement_of_orders_is_kendalls():
    rng = np.random.default_rng(0)
    for _ in range(5):
        first, second = rng.integers(6, size=(2, 9))
        expected = kendalltau(first, second).statistic
        assert ranking.kendall_tau(first, second) == pytest.approx(expected)
    assert ranking.kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert np.isnan(ranking.kendall_tau([1, 1], [1, 2]))
