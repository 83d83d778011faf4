import json

import numpy as np
import pytest
from mmdet.registry import DATASETS

from mmdet_rfdetr.data.wrappers import classes_of
from mmdet_rfdetr.demo.figures import CLASSES, POINTS, draw_figures
from tests.test_demo.test_demo import SMALL, build

HEAD = 0
LEFT, RIGHT = (1, 3), (2, 4)
SEEN, COVERED, ABSENT = 2, 1, 0


@pytest.fixture(scope='module')
def pictures():
    return [draw_figures(0, 0, index, 128) for index in range(60)]


def points_of(pictures):
    return np.concatenate([points for *_, points in pictures])


def test_figures_are_as_promised(pictures):
    assert {len(boxes) for _, boxes, _, _ in pictures} == {1, 2}
    for _, boxes, labels, points in pictures:
        assert points.shape == (len(boxes), len(POINTS), 3)
        assert (labels == 0).all()
        assert boxes[:, :2].min() >= 0
        assert (boxes[:, :2] + boxes[:, 2:]).max() <= 128
        for (x, y, width, height), each in zip(boxes, points, strict=True):
            there = each[each[:, 2] > ABSENT, :2]
            assert (there >= [x, y]).all()
            assert (there <= [x + width, y + height]).all()
            assert (each[each[:, 2] == ABSENT] == 0).all()
    states = points_of(pictures)[..., 2]
    assert (states[:, HEAD] == SEEN).all()
    assert {*states.ravel()} == {SEEN, COVERED, ABSENT}
    assert (states[:, 1:] == SEEN).mean() > 0.75


def test_left_is_reddish_and_on_the_right_of_the_picture(pictures):
    feet_on_the_right = []
    for picture, _, _, points in pictures:
        for each in points:
            for side, redder in ((LEFT, True), (RIGHT, False)):
                for index in side:
                    x, y, state = each[index]
                    if state != SEEN or _is_hidden(each, index):
                        continue
                    blue, _, red = picture[int(y), int(x)].astype(int)
                    # The left foot is purple, the right one cyan.
                    same = (red > blue) == redder or (index == 3 and red > 150)
                    assert same, (index, blue, red)
            if (each[3:, 2] > ABSENT).all():
                feet_on_the_right.append(each[3, 0] > each[4, 0])
    assert np.mean(feet_on_the_right) > 0.85


def _is_hidden(points, index):
    """Whether another end lies over this one."""
    apart = np.abs(points[:, :2] - points[index, :2]).max(axis=1)
    return np.sort(apart)[1] < 20


def test_the_same_settings_draw_the_same_figures():
    """Whoever changes them raises the version in ``dataset.py``."""
    picture, boxes, _, points = draw_figures(3, 1, 5, 64)
    again = draw_figures(3, 1, 5, 64)
    np.testing.assert_array_equal(picture, again[0])
    for other in ((4, 1, 5, 64), (3, 0, 5, 64), (3, 1, 6, 64)):
        assert not np.array_equal(draw_figures(*other)[0], picture)
    np.testing.assert_allclose(boxes, GOLDEN_BOXES, atol=0.02)
    np.testing.assert_allclose(points, GOLDEN_POINTS, atol=0.02)
    # Sines differ in the last bit between machines, which can turn a rounding.
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), GOLDEN_MEAN, atol=0.01)


GOLDEN_BOXES = [[34.94, 21.4, 19.59, 31.92]]
GOLDEN_POINTS = [
    [
        [48.22, 26.99, 2],
        [52.48, 39.21, 2],
        [39.09, 23.44, 2],
        [49.52, 51.26, 2],
        [36.99, 49.97, 2],
    ]
]
GOLDEN_MEAN = [193.924, 182.417, 183.264]


def build_figures(root, split='train', **changes):
    return build(root, split, type='RFDETRDemoFigures', **changes)


def test_first_use_writes_coco_data_with_points(tmp_path):
    root = tmp_path / 'figures'
    metainfo = dict(classes=CLASSES)
    dataset = build_figures(root, metainfo=metainfo)
    assert type(dataset) is DATASETS.get('RFDETRCocoDataset')
    assert len(dataset) == SMALL['num_train']
    document = json.loads((root / 'annotations' / 'train.json').read_text())
    assert document['categories'] == [dict(id=1, name='figure', keypoints=list(POINTS))]
    _, boxes, _, points = draw_figures(0, 0, 2, 64)
    annotations = [a for a in document['annotations'] if a['image_id'] == 3]
    assert [a['bbox'] for a in annotations] == boxes.tolist()
    assert [a['keypoints'] for a in annotations] == points.reshape(-1, 15).tolist()
    assert [a['num_keypoints'] for a in annotations] == [
        int((each[:, 2] > 0).sum()) for each in points
    ]
    written = (root / 'train' / '000000.jpg').stat().st_mtime_ns
    assert len(build_figures(root, 'val', metainfo=metainfo)) == SMALL['num_val']
    assert (root / 'train' / '000000.jpg').stat().st_mtime_ns == written


def test_shapes_and_figures_do_not_share_a_folder(tmp_path):
    build(tmp_path)
    with pytest.raises(FileExistsError, match='figures.*data_root'):
        build_figures(tmp_path, metainfo=dict(classes=CLASSES))


def test_a_config_tells_the_classes_of_figures():
    dataset = dict(type='RFDETRDemoFigures', metainfo=dict(classes=CLASSES))
    assert classes_of(dict(dataset=dataset)) == CLASSES
