"""Objects keep their ids: they cross, leave, and are hidden for ten frames."""

import json

import cv2
import numpy as np
import pytest
from rfdetr_predict import Sources
from rfdetr_predict.__main__ import main
from rfdetr_predict.tracking import track
from rfdetr_runtime import Detector

from tests.test_runtime.squares import COLOURS, Squares, write_video

pytest.importorskip('trackers')
from trackers.eval import box_iou, compute_clear_metrics, compute_hota_metrics

FRAMES, SIZE, SIDE = 100, (200, 260), 24
# Name, first place (x, y), pixels a frame, first frame.
PATHS = {
    1: ('red', (10, 20), (2, 0), 0),  # crosses the next one, in front of it
    2: ('red', (208, 32), (-2, 0), 0),
    3: ('red', (180, 80), (2, 0), 0),  # leaves
    4: ('red', (20, 120), (2, 0), 0),  # is hidden by a curtain
    5: ('red', (230, 80), (-1, 0), 75),  # enters where one has left, later
    6: ('blue', (40, 160), (1, 0), 0),
}
CURTAIN, CLOSED = (slice(110, 150), slice(60, 160)), range(40, 50)


def draw_frame(number):
    """A frame and what can be seen of each object, xyxy by its number."""
    image, owner = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, int)
    for key, (name, (x, y), (dx, dy), first) in reversed(PATHS.items()):
        if number < first:
            continue
        x, y = x + dx * (number - first), y + dy * (number - first)
        for colour, edge, value in (((0, 0, 0), 1, 0), (COLOURS[name], 0, key)):
            rows = slice(max(0, y - edge), max(0, y + SIDE + edge))
            columns = slice(max(0, x - edge), max(0, x + SIDE + edge))
            image[rows, columns], owner[rows, columns] = colour, value
    if number in CLOSED:
        image[CURTAIN], owner[CURTAIN] = (90, 90, 90), 0
    boxes = {}
    for key in PATHS:
        rows, columns = np.nonzero(owner == key)
        if len(rows):
            corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            boxes[key] = np.array(corners, float)
    return image, boxes


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    frames, truth = zip(*map(draw_frame, range(FRAMES)), strict=True)
    path = tmp_path_factory.mktemp('tracking') / 'paths.avi'
    return write_video(path, frames), truth


def measure(truth, found):
    """CLEAR and HOTA of ids and boxes of each frame."""
    gt_ids = [np.array(list(boxes)) for boxes in truth]
    gt_boxes = [np.array(list(boxes.values())).reshape(-1, 4) for boxes in truth]
    tracked = [each.take(each.ids >= 0) for each in found]
    ids = [each.ids for each in tracked]
    ious = [
        box_iou(one, other.boxes.astype(float))
        for one, other in zip(gt_boxes, tracked, strict=True)
    ]
    return compute_clear_metrics(gt_ids, ids, ious), compute_hota_metrics(
        gt_ids, ids, ious
    )


def run(path, threshold=0.5):
    results = Detector(Squares(), threshold=0.1).stream(Sources([path]))
    return [found for _, found in track(results, threshold)]


def test_objects_keep_their_ids(video):
    path, truth = video
    hidden = [number for number in range(FRAMES) if 4 not in truth[number]]
    assert len(hidden) == 10
    found = run(path)
    clear, hota = measure(truth, found)
    assert clear['IDSW'] == 0
    assert clear['CLR_FP'] == 0
    assert clear['MOTA'] > 0.98
    assert hota['HOTA'] > 0.95
    ids = {int(each) for frame in found for each in frame.ids if each >= 0}
    assert ids == {1, 2, 3, 4, 5, 6}


def test_the_measure_sees_an_id_that_is_lost(video):
    path, truth = video
    found = run(path)
    for frame in found[50:]:
        frame.ids[frame.ids == 1] = 99
    clear, _ = measure(truth, found)
    assert clear['IDSW'] == 1


def test_each_video_begins_anew(video):
    path, _ = video
    found = run(path)
    results = Detector(Squares(), threshold=0.1).stream(Sources([path, path]))
    twice = [found for _, found in track(results, 0.5)]
    for first, again in zip(found, twice[FRAMES:], strict=True):
        assert np.array_equal(first.ids, again.ids)


def test_ids_are_in_json_csv_and_the_video(video, tmp_path):
    path, _ = video
    options = ['--track', '--threshold', '0.5', '--out', str(tmp_path), '--quiet']
    kinds = ['--save', 'json', 'csv', 'video', 'yolo']
    code = main(
        ['squares', str(path), *options, *kinds], open_model=lambda args: Squares()
    )
    assert code == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / 'detections.jsonl').read_text().splitlines()
    ]
    ids = {each['id'] for row in rows for each in row['detections']}
    assert ids - {-1} == {1, 2, 3, 4, 5, 6}
    lines = (tmp_path / 'detections.csv').read_text().splitlines()
    assert {line.split(',')[2] for line in lines[1:]} == {str(each) for each in ids}
    assert (tmp_path / 'labels' / 'paths' / '000050.txt').read_text().split()[-1] in (
        '123456'
    )
    written = cv2.VideoCapture(str(tmp_path / 'videos' / 'paths.mp4'))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES


def test_pictures_have_no_ids(tmp_path):
    image = np.zeros((40, 40, 3), np.uint8)
    image[5:30, 5:30] = COLOURS['red']
    results = Detector(Squares(), threshold=0.1).stream(Sources([image]))
    ((_, found),) = track(results, 0.5)
    assert len(found) == 1 and found.ids is None
