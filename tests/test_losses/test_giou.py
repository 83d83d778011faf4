"""The numbers of mmdet's loss, by operations that a CUDA graph can record."""

import pytest
import torch
from mmdet.models.losses import GIoULoss

from mmdet_rfdetr.losses import RFDETRGIoULoss
from mmdet_rfdetr.ops.boxes import cxcywh_to_xyxy


def boxes(seed):
    """Pairs that overlap, lie apart, are the same, or have no area."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(40, 4, generator=generator)
    made[:5, 2:] = 0
    made[0, :2] = 0.5
    made[5:10] = 0.5
    made[10:15, :2] += 10 * seed
    return cxcywh_to_xyxy(made)


@pytest.mark.parametrize('reduction', ('none', 'sum', 'mean'))
def test_values_and_gradients_are_those_of_mmdet(reduction):
    found = []
    for loss in (RFDETRGIoULoss(loss_weight=2.0), GIoULoss(loss_weight=2.0, eps=1e-7)):
        pred = boxes(1).requires_grad_()
        value = loss(pred, boxes(2), reduction_override=reduction)
        value.sum().backward()
        found.append((value.detach(), pred.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_it_computes_in_float32():
    with torch.autocast('cpu', torch.bfloat16):
        low = RFDETRGIoULoss()(boxes(1).bfloat16(), boxes(2))
    assert low.dtype == torch.float32
