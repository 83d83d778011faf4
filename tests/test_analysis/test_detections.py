import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData
from PIL import Image

from mmdet_rfdetr.analysis.drawn_detections import (
    class_colours,
    draw_boxes,
    picture_grid,
)
from mmdet_rfdetr.segmentation.mask_results import EncodedMasks

RED, BLUE = (255, 0, 0), (0, 0, 255)


def boxes(corners, labels, **fields):
    return InstanceData(
        bboxes=torch.tensor(corners), labels=torch.tensor(labels), **fields
    )


def colour_box(picture, colour):
    """Left, top, right and bottom of the pixels that have this very colour."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_boxes_are_drawn_where_they_are():
    image = np.zeros((50, 100, 3), np.uint8)
    found = boxes([[20.0, 30.0, 60.0, 45.0]], [1])
    picture = draw_boxes(image, found, ('a', 'b'), (RED, BLUE), side=400)
    assert picture.size == (400, 200)
    left, top, right, bottom = colour_box(picture, BLUE)
    assert (left, right, bottom) == (80, 240, 180)
    assert 100 < top < 120  # the name stands above the box


def test_masks_are_tinted_below_the_boxes():
    image = np.full((50, 100, 3), 100, np.uint8)
    mask = torch.zeros(1, 25, 50, dtype=torch.bool)  # half the size of the image
    mask[0, 10:20, 25:40] = True
    found = boxes([[5.0, 5.0, 30.0, 45.0]], [1], masks=mask)
    picture = draw_boxes(image, found, ('a', 'b'), (RED, BLUE), side=400)
    tint = picture.getpixel((260, 120))
    assert tint == pytest.approx((50, 50, 178), abs=1)
    left, top, right, bottom = colour_box(picture, tint)
    # Soft edges: a cell of the mask is eight pixels wide here.
    assert (left, top, right, bottom) == pytest.approx((200, 80, 319, 159), abs=12)
    assert picture.getpixel((20, 100)) == BLUE


def test_colours_of_the_image_are_right():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :, 0] = 255  # blue, in BGR
    picture = draw_boxes(image, InstanceData(), (), (), side=8)
    assert picture.getpixel((4, 4)) == BLUE


def test_names_stay_in_the_picture():
    image = np.zeros((40, 40, 3), np.uint8)
    corners = [[0.0, 0.0, 1.0, 1.0], [39.0, 39.0, 40.0, 40.0]]
    found = boxes(corners, [0, 0], scores=torch.tensor([0.5, 1.0]))
    picture = draw_boxes(image, found, ('long name of a class',), (RED,), side=160)
    left, top, right, bottom = colour_box(picture, RED)
    assert left == 0 and top == 0
    assert right - left > 100


def test_the_best_predictions_lie_on_top():
    image = np.zeros((50, 50, 3), np.uint8)
    scores = torch.tensor([0.9, 0.5])
    found = boxes([[5.0, 20.0, 45.0, 45.0]] * 2, [0, 1], scores=scores)
    picture = draw_boxes(image, found, ('a', 'b'), (RED, BLUE), side=200)
    assert picture.getpixel((100, 180)) == RED


@pytest.mark.parametrize(
    'masks',
    [
        torch.eye(8, dtype=torch.bool)[None],
        BitmapMasks(np.eye(8, dtype=np.uint8)[None], 8, 8),
        PolygonMasks([[np.array([2.0, 2, 6, 2, 6, 6, 2, 6])]], 8, 8),
        EncodedMasks([rle.encode(np.asfortranarray(np.eye(8, dtype=np.uint8)))], 8, 8),
    ],
    ids=lambda masks: type(masks).__name__,
)
def test_masks_of_every_kind_are_drawn(masks):
    image = np.zeros((8, 8, 3), np.uint8)
    found = boxes([[7.0, 7.0, 8.0, 8.0]], [0], masks=masks)
    picture = draw_boxes(image, found, ('',), (RED,), side=80)
    red, *others = picture.getpixel((35, 35))
    assert red > 100 and others == [0, 0]
    assert picture.getpixel((75, 5)) == (0, 0, 0)


def test_grid_keeps_every_picture():
    colours = [(index, 200 - index, 7) for index in range(5)]
    pictures = [Image.new('RGB', (30, 20 + i), c) for i, c in enumerate(colours)]
    grid = np.asarray(picture_grid([pictures[:3], pictures[3:]], ['one', 'two', '3']))
    for index, colour in enumerate(colours):
        assert (grid == colour).all(axis=2).sum() == 30 * (20 + index)


def test_palette_of_the_data_is_used_if_it_is_long_enough():
    assert class_colours([[1, 2, 3], [4, 5, 6]], 2) == [(1, 2, 3), (4, 5, 6)]
    assert class_colours(None, 0) == []
    for palette in ([(1, 2, 3)], 'random', None):
        assert len(set(class_colours(palette, 3))) == 3
