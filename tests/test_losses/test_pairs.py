import pytest
import torch
from mmdet.models.losses import L1Loss

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.losses.pairs import sum_pairs

from .stages import make_matches


@pytest.mark.parametrize('width', [(), (4,)])
def test_pairs_are_summed_by_stage(width):
    matches = make_matches()
    predicted, true = torch.rand(2, len(matches.stages), *width)
    found = sum_pairs(L1Loss(loss_weight=3.0), predicted, true, matches)
    for stage, total in enumerate(found):
        pairs = matches.stages == stage
        torch.testing.assert_close(
            total, 3 * (predicted[pairs] - true[pairs]).abs().sum()
        )


@pytest.mark.parametrize('width', [(), (4,)])
def test_no_pairs_have_a_loss_and_a_gradient(width):
    predicted = torch.zeros(0, *width, requires_grad=True)
    found = sum_pairs(L1Loss(), predicted, torch.zeros(0, *width), make_matches(()))
    assert found.tolist() == [0, 0, 0]
    found.sum().backward()
    assert predicted.grad is not None


@pytest.mark.parametrize('shape', [(), (3,)])
def test_a_loss_that_sums_by_itself_is_refused(shape):
    class Summed(torch.nn.Module):
        def forward(self, pred, target, reduction_override=None):
            return torch.zeros(shape)

    boxes = torch.rand(9, 4)
    with pytest.raises(SettingError, match="Summed .* reduction_override='none'"):
        sum_pairs(Summed(), boxes, boxes, make_matches())
