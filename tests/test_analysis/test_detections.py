import numpy as np
import pytest
from PIL import Image

from mmdet_rfdetr.analysis.detections import (
    Boxes,
    class_colours,
    draw_boxes,
    picture_grid,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def colour_box(picture, colour):
    """Left, top, right and bottom of the pixels that have this very colour."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_boxes_are_drawn_where_they_are():
    image = np.zeros((50, 100, 3), np.uint8)
    boxes = Boxes(np.array([[20.0, 30.0, 60.0, 45.0]]), np.array([1]))
    picture = draw_boxes(image, boxes, ('a', 'b'), (RED, BLUE), side=400)
    assert picture.size == (400, 200)
    left, top, right, bottom = colour_box(picture, BLUE)
    assert (left, right, bottom) == (80, 240, 180)
    assert 100 < top < 120  # the name stands above the box


def test_masks_are_tinted_below_the_boxes():
    image = np.full((50, 100, 3), 100, np.uint8)
    mask = np.zeros((25, 50), bool)  # half the size of the image
    mask[10:20, 25:40] = True
    boxes = Boxes(np.array([[5.0, 5.0, 30.0, 45.0]]), np.array([1]), masks=[mask])
    picture = draw_boxes(image, boxes, ('a', 'b'), (RED, BLUE), side=400)
    tint = picture.getpixel((260, 120))
    assert tint == pytest.approx((50, 50, 178), abs=1)
    left, top, right, bottom = colour_box(picture, tint)
    # Soft edges: a cell of the mask is eight pixels wide here.
    assert (left, top, right, bottom) == pytest.approx((200, 80, 319, 159), abs=12)
    assert picture.getpixel((20, 100)) == BLUE


def test_colours_of_the_image_are_right():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, :, 0] = 255  # blue, in BGR
    none = Boxes(np.empty((0, 4)), np.empty(0, int))
    picture = draw_boxes(image, none, (), (), side=8)
    assert picture.getpixel((4, 4)) == BLUE


def test_names_stay_in_the_picture():
    image = np.zeros((40, 40, 3), np.uint8)
    corners = np.array([[0.0, 0.0, 1.0, 1.0], [39.0, 39.0, 40.0, 40.0]])
    boxes = Boxes(corners, np.array([0, 0]), np.array([0.5, 1.0]))
    picture = draw_boxes(image, boxes, ('long name of a class',), (RED,), side=160)
    left, top, right, bottom = colour_box(picture, RED)
    assert left == 0 and top == 0
    assert right - left > 100


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
