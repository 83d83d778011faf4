"""Points of exported files: decoded, drawn, written and moved with their tiles."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from rfdetr_predict.drawing import draw
from rfdetr_predict.outputs import Outputs
from rfdetr_runtime import Detections, Metadata, Picture, find_objects
from rfdetr_runtime.keypoints import decode_keypoints
from rfdetr_runtime.tiles import join_views

SCHEME = dict(
    counts=[2, 0, 3],
    names=['a', 'b', 'c'],
    skeleton=[[0, 1], [1, 2]],
    score_mode='class',
    alpha=0.2,
)
WIDTH, HEIGHT = 200, 100
LABELS = np.array([0, 1, 2, 3])
CENTRES = np.array([[0.5, 0.5, 0.2, 0.4]] * 4, np.float32)
BOXES = np.array([[0.4, 0.3, 0.6, 0.7]] * 4)


@pytest.fixture(scope='module')
def raw():
    """(4, 3 classes * 3 slots, 8), of every class other numbers."""
    return np.random.RandomState(0).normal(size=(4, 9, 8)).astype(np.float32)


def decode(raw, **changes):
    scores = np.full(4, 0.9)
    return decode_keypoints(raw, BOXES, LABELS, scores, {**SCHEME, **changes})


def test_each_class_has_its_own_slots(raw):
    made = decode(raw)
    assert (made['keypoint_scores'] > 0).sum(1).tolist() == [2, 0, 3, 0]
    np.testing.assert_allclose(made['keypoints'][0, :2], raw[0, :2, :2])
    np.testing.assert_allclose(made['keypoints'][2], raw[2, 6:, :2])
    assert (made['keypoints'][0, 2] == 0).all()
    findable = 1 / (1 + np.exp(-raw[2, 6:, 2]))
    np.testing.assert_allclose(made['keypoint_scores'][2], findable, rtol=1e-6)
    np.testing.assert_allclose(made['scores'], 0.9)


def test_covariances_are_the_inverse_of_the_precision(raw):
    made = decode(raw)['keypoint_covariances']
    for slot in range(3):
        first, mixed, second = raw[2, 6 + slot, 4:7].astype(float)
        lower = np.array([[np.exp(first), 0], [mixed, np.exp(second)]])
        expected = 0.2 * 0.4 * np.linalg.inv(lower @ lower.T)
        np.testing.assert_allclose(made[2, slot], expected, rtol=1e-5)
    assert np.isnan(made[[1, 3]]).all()
    assert np.isnan(made[0, 2]).all()


def test_fused_scores(raw):
    """A sure detection with unit precision gets 0.46, and r / (1 + r) in general."""
    raw = raw.copy()
    raw[0, :2, 4:7] = 0
    fused = decode(raw, score_mode='fused')['scores']
    certain = 0.9 / 2**0.2  # the trace is 2
    assert fused[0] == pytest.approx(certain / (1 + certain))
    assert fused[1] == pytest.approx(0.9 / 1.9)  # no point is unsure
    assert fused[3] == pytest.approx(0.9)  # a class beyond the scheme
    covariances = decode(raw)['keypoint_covariances'][2] / (0.2 * 0.4)
    traces = np.trace(covariances, axis1=1, axis2=2)
    weights = 1 / (1 + np.exp(-raw[2, 6:, 2]))
    r = 0.9 / np.average(traces, weights=weights) ** 0.2
    assert fused[2] == pytest.approx(r / (1 + r), rel=1e-5)


@pytest.fixture(scope='module')
def found(raw):
    """The detections of a file of the official layout, in pixels."""
    metadata = Metadata(
        names=('one', 'two', 'three', 'four'),
        input_size=(64, 64),
        mean=(0,) * 3,
        std=(1,) * 3,
        keypoints={**SCHEME, 'score_mode': 'fused'},
    )
    again = Metadata.from_strings(metadata.to_strings(), 'x.onnx')
    assert again == metadata
    logits = np.full((1, 4, 4), -9.0)
    logits[0, range(4), range(4)] = [0, 1, 2, 3]
    outputs = dict(dets=CENTRES[None], labels=logits, keypoints=raw[None] / 9)
    size = HEIGHT, WIDTH
    (each,) = find_objects(outputs, again, [size], max_detections=4)
    return Detections(**vars(each), class_names=again.names, scheme=again.keypoints)


def test_detections_are_in_pixels_and_in_the_order_of_their_scores(found, raw):
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-3)))
    place = found.labels.tolist().index(2)
    expected = raw[2, 6:, :2] / 9 * [WIDTH, HEIGHT]
    np.testing.assert_allclose(found.keypoints[place], expected, rtol=1e-5)
    # As standard deviations: the one of x grows with the width.
    of_parts = decode(raw / 9)['keypoint_covariances'][2]
    scale = np.outer([WIDTH, HEIGHT], [WIDTH, HEIGHT])
    np.testing.assert_allclose(
        found.keypoint_covariances[place], of_parts * scale, rtol=1e-5
    )


def test_results_hold_the_points_of_their_class(found, tmp_path):
    picture = Picture(np.zeros((HEIGHT, WIDTH, 3), np.uint8), 'a.jpg', image_id=7)
    outputs = Outputs(['json', 'coco', 'yolo'], tmp_path, found.class_names, {})
    outputs.write(picture, found)
    outputs.close()
    line = json.loads((tmp_path / 'detections.jsonl').read_text())
    counts = {row['label']: len(row['keypoints']) for row in line['detections']}
    assert counts == {0: 2, 1: 0, 2: 3, 3: 0}
    (row,) = (row for row in line['detections'] if row['label'] == 2)
    place = found.labels.tolist().index(2)
    wanted = np.column_stack((found.keypoints[place], found.keypoint_scores[place]))
    np.testing.assert_allclose(row['keypoints'], wanted, atol=1e-3)
    assert len(row['keypoint_covariances'][0]) == 3
    results = json.loads((tmp_path / 'coco.json').read_text())
    truth = COCO(str(tmp_path / 'coco_images.json'))
    rows = truth.loadRes(results).loadAnns(truth.loadRes(results).getAnnIds())
    points = {each['category_id']: each.get('keypoints') for each in rows}
    np.testing.assert_allclose(points[3], wanted.ravel(), atol=1e-3)
    assert points[2] is None
    lines = (tmp_path / 'labels' / 'a.txt').read_text().splitlines()
    assert sorted(len(each.split()) for each in lines) == [6, 6, 12, 15]


def test_points_and_lines_are_drawn(found):
    dark = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    place = found.labels.tolist().index(2)
    sure = vars(found) | dict(
        keypoint_scores=np.ones_like(found.keypoint_scores),
        keypoints=np.array([[[20, 20], [180, 20], [180, 80]]] * 4, np.float32),
    )
    each = Detections(**sure).take([place])
    drawn = draw(dark, each)
    assert drawn[20, 20].any()
    assert drawn[20, 140].any()  # on a line, outside of the box
    unsure = Detections(**vars(each) | dict(keypoint_scores=np.full((1, 3), 0.01)))
    assert not draw(dark, unsure)[20, 20].any()
    assert not draw(dark, unsure)[20, 140].any()


def test_joined_views_keep_the_points_of_the_best(found):
    place = found.labels.tolist().index(2)
    best = found.take([place])
    worse = Detections(
        **vars(best) | dict(scores=best.scores / 2, keypoints=best.keypoints + 5)
    )
    regions = np.tile([0, 0, WIDTH, HEIGHT], (2, 1))
    joined = join_views([worse, best], regions, (HEIGHT, WIDTH))
    assert len(joined) == 1
    np.testing.assert_array_equal(joined.keypoints, best.keypoints)
    np.testing.assert_array_equal(
        joined.keypoint_covariances, best.keypoint_covariances
    )
