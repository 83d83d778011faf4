"""Pictures of points, of the lines between them, and of how sure they are."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_rfdetr.keypoint_results.pictures import RFDETRKeypointVisualizer, ellipse_of

META = dict(
    classes=('face',),
    palette=[(255, 0, 0)],
    keypoint_info={n: dict(name=name, id=n) for n, name in enumerate('abc')},
    skeleton_info={0: dict(link=('a', 'b'), id=0)},
)


def instances():
    covariance = torch.tensor([[60.0, 40.0], [40.0, 60.0]])
    return InstanceData(
        bboxes=torch.tensor([[20.0, 20.0, 180.0, 130.0]]),
        labels=torch.zeros(1, dtype=int),
        scores=torch.tensor([0.9]),
        keypoints=torch.tensor([[[50.0, 50.0], [150.0, 50.0], [100.0, 100.0]]]),
        keypoint_scores=torch.tensor([[1.0, 0.9, 0.1]]),
        keypoint_covariances=covariance.expand(1, 3, 2, 2),
    )


def draw(**settings):
    visualizer = RFDETRKeypointVisualizer('points', **settings)
    visualizer.dataset_meta = META
    sample = DetDataSample(pred_instances=instances())
    image = np.zeros((150, 200, 3), np.uint8)
    visualizer.add_datasample('a', image, sample, draw_gt=False, pred_score_thr=0.3)
    return visualizer.get_image()


def test_sure_points_and_their_lines_are_drawn():
    picture = draw()
    assert picture[50, 50].tolist() == [255, 0, 0]
    assert 0 < abs(picture[50, 150, 0] - 0.9 * 255) < 1  # less sure, less bright
    assert picture[50, 100].tolist() == [255, 0, 0]  # of the line from a to b
    assert not picture[100, 100].any()  # not sure
    assert draw(point_score_thr=0.05)[100, 100].any()


def test_points_are_drawn_where_a_larger_picture_has_them():
    visualizer = RFDETRKeypointVisualizer('larger')
    visualizer.dataset_meta = META
    picture = np.zeros((300, 400, 3), np.uint8)
    made = instances()
    true = InstanceData(
        labels=made.labels,
        keypoints=made.keypoints,
        keypoints_visible=torch.tensor([[2, 1, 0]]),
    )
    for some in (made, true):
        drawn = visualizer.draw_points(picture, some, 2.0)
        assert drawn[100, 100].tolist() == [255, 0, 0]
        assert drawn[100, 200].any() and not drawn[200, 200].any()
    assert not picture.any()


def test_points_have_the_colours_of_the_metainfo():
    visualizer = RFDETRKeypointVisualizer('coloured')
    info = {n: dict(part) for n, part in META['keypoint_info'].items()}
    info[0]['color'] = [0, 255, 0]
    visualizer.dataset_meta = dict(META, keypoint_info=info)
    drawn = visualizer.draw_points(np.zeros((150, 200, 3), np.uint8), instances())
    assert drawn[50, 50].tolist() == [0, 255, 0]
    assert drawn[50, 150].tolist()[1:] == [0, 0]  # that of the class


def test_of_seventeen_points_without_names_the_lines_are_cocos():
    """The official weights know nothing of the names of their points."""
    visualizer = RFDETRKeypointVisualizer('persons')
    visualizer.dataset_meta = dict(classes=('person',))
    person = InstanceData(
        labels=torch.zeros(1, dtype=int),
        keypoints=torch.zeros(1, 17, 2),
        keypoint_scores=torch.zeros(1, 17),
    )
    person.keypoints[0, 5], person.keypoints[0, 6] = torch.tensor([[20, 50], [180, 50]])
    person.keypoint_scores[0, 5:7] = 1  # the shoulders
    drawn = visualizer.draw_points(np.zeros((150, 200, 3), np.uint8), person)
    assert drawn[50, 100].any()


def test_ellipses_are_drawn_on_request():
    reach = np.sqrt(-2 * np.log(0.5) * 100) / np.sqrt(2)  # of the long axis
    place = round(50 + reach)
    around = slice(place - 2, place + 3)
    assert not draw()[around, around].any()
    assert draw(ellipse=0.5)[around, around].any()


def test_what_is_no_number_is_drawn_without_a_warning():
    visualizer = RFDETRKeypointVisualizer('broken', ellipse=0.5)
    visualizer.dataset_meta = META
    broken = instances()
    broken.keypoints = broken.keypoints * torch.nan
    broken.keypoint_covariances = broken.keypoint_covariances * torch.nan
    visualizer.draw_points(np.zeros((150, 200, 3), np.uint8), broken)


def test_ellipses_grow_with_the_picture():
    """The drawn extent of one is twice as large in a picture of twice the size."""
    extents = []
    for scale in (1, 2):
        visualizer = RFDETRKeypointVisualizer(f'of {scale}', ellipse=0.9)
        visualizer.dataset_meta = dict(META, skeleton_info={})
        black = np.zeros((150 * scale, 200 * scale, 3), np.uint8)
        one = instances()
        one.keypoint_scores = torch.tensor([[1.0, 0.0, 0.0]])
        drawn = visualizer.draw_points(black, one, float(scale)).any(-1)
        extents.append(np.ptp(np.flatnonzero(drawn.any(0))))
    reach = np.sqrt(-2 * np.log(0.1) * 60)  # of sqrt(60) pixels across
    assert extents[0] == pytest.approx(2 * reach, abs=2)
    assert extents[1] == pytest.approx(4 * reach, abs=2)


def test_ellipse_holds_what_it_says():
    covariance = np.array([[9.0, 4.0], [4.0, 4.0]])
    axes, angle = ellipse_of(covariance, 0.5)
    drawn = np.random.RandomState(0).multivariate_normal((0, 0), covariance, 20000)
    turn = np.radians(angle)
    x = drawn @ (np.cos(turn), np.sin(turn)) / axes[0]
    y = drawn @ (-np.sin(turn), np.cos(turn)) / axes[1]
    assert np.mean(x**2 + y**2 <= 1) == pytest.approx(0.5, abs=0.02)
