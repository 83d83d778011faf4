import pytest
import torch

from mmdet_rfdetr.ops.boxes import (
    apply_deltas,
    cxcywh_to_xyxy,
    paired_iou,
    xyxy_to_cxcywh,
)


def test_corners_of_a_box():
    corners = cxcywh_to_xyxy(torch.tensor([[3.0, 5.0, 2.0, 4.0]]))
    assert corners.tolist() == [[2, 3, 4, 7]]


def test_negative_sizes_count_as_zero():
    corners = cxcywh_to_xyxy(torch.tensor([3.0, 5.0, -2.0, -4.0]))
    assert corners.tolist() == [3, 5, 3, 5]


def test_conversions_undo_each_other():
    boxes = torch.rand(2, 7, 4)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


def test_deltas_move_by_the_size_and_scale_exponentially():
    deltas = torch.tensor([0.5, -1.0, 0.0, 1.0])
    reference = torch.tensor([0.3, 0.6, 0.2, 0.1])
    moved = apply_deltas(deltas, reference)
    expected = [0.3 + 0.5 * 0.2, 0.6 - 1.0 * 0.1, 0.2, 0.1 * 2.718281828]
    torch.testing.assert_close(moved, torch.tensor(expected))


def test_no_deltas_change_nothing():
    references = torch.randn(3, 4)
    assert apply_deltas(torch.zeros(3, 4), references).equal(references)


def test_boxes_may_leave_the_image():
    moved = apply_deltas(
        torch.tensor([9.0, 0, 3.0, 0]), torch.tensor([0.5, 0.5, 0.5, 0.5])
    )
    assert moved[0] > 1 and moved[2] > 1


def test_boxes_are_float32_whatever_the_deltas_are():
    moved = apply_deltas(torch.zeros(2, 4).bfloat16(), torch.zeros(2, 4).bfloat16())
    assert moved.dtype == torch.float32


def slow_iou(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    overlap = max(width, 0) * max(height, 0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return overlap / max(areas - overlap, 1e-7)


def test_overlap_of_pairs():
    torch.manual_seed(0)
    boxes, others = cxcywh_to_xyxy(torch.rand(2, 50, 4))
    expected = [
        slow_iou(box, other)
        for box, other in zip(boxes.tolist(), others.tolist(), strict=True)
    ]
    assert 0 < sum(value > 0 for value in expected) < 50
    torch.testing.assert_close(paired_iou(boxes, others), torch.tensor(expected))


@pytest.mark.parametrize(
    ('other', 'expected'),
    (((0, 0, 2, 2), 1), ((3, 3, 4, 4), 0), ((0, 0, 1, 1), 0.25), ((1, 1, 1, 1), 0)),
    ids=('itself', 'apart', 'inside', 'empty'),
)
def test_overlap_of_a_pair(other, expected):
    box = torch.tensor([0.0, 0, 2, 2])
    assert paired_iou(box, torch.tensor(other).float()) == expected


def test_overlap_of_two_empty_boxes_is_zero():
    box = torch.ones(4)
    assert paired_iou(box, box) == 0
