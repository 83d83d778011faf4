import pytest
import torch
import torch.nn.functional as F

from mmdet_rfdetr.matching.costs import (
    focal_costs_,
    pair_costs,
    replace_non_finite,
)

WEIGHTS = dict(cls_weight=2.0, bbox_weight=5.0, iou_weight=2.0, alpha=0.25)


def exact_focal_costs(logits, weight, alpha):
    """The formula in float64, where nothing of it cancels."""
    z = logits.double()
    p, rest = z.sigmoid(), (-z).sigmoid()
    gain = alpha * rest.square() * F.softplus(-z)
    return weight * (gain - (1 - alpha) * p.square() * F.softplus(z))


def test_focal_costs_of_all_logits():
    """Small ones as well as those whose probability is zero or one in float32."""
    logits = torch.cat((torch.linspace(-30, 30, 6001), torch.tensor([-300.0, 300.0])))
    logits = torch.cat((logits, torch.linspace(-110, -70, 401)))
    costs = logits.clone()
    focal_costs_(costs, torch.zeros(()), 2.0, 0.25)
    exact = exact_focal_costs(logits, 2.0, 0.25).float()
    torch.testing.assert_close(costs, exact, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize('value', (float('nan'), float('inf'), float('-inf')))
def test_a_logit_that_is_not_finite_has_no_finite_cost(value):
    """What the assigner has to be told."""
    costs = torch.tensor([value, 0.0])
    focal_costs_(costs, torch.zeros(()), 2.0, 0.25)
    assert costs.isfinite().tolist() == [False, True]


def test_a_replaced_cost_exceeds_the_highest_by_the_largest_of_its_stage():
    costs = torch.tensor([-5.0, -3.0, float('nan'), 0.5, 0.25, float('nan')])
    costs = torch.stack((costs, torch.full_like(costs, 100))).view(1, 2, 2, 3)
    used = torch.tensor([[True, False]])
    replaced, bad = replace_non_finite(costs, used)
    assert replaced[:, 0].flatten().tolist() == [-5, -3, -3 + 5 + 1, 0.5, 0.25, 2]
    assert bad


@pytest.mark.parametrize(
    ('classes', 'objects'), ((4, 3), (4, 6), (1, 1), (1, 6)), ids=str
)
def test_costs_leave_their_inputs_alone(classes, objects):
    """Although they are worked out in place."""
    inputs = (
        torch.randn(2, 7, classes),
        torch.rand(2, 7, 4),
        torch.randint(classes, (2, objects)),
        torch.rand(2, objects, 4),
    )
    before = [x.clone() for x in inputs]
    costs = pair_costs(*inputs, **WEIGHTS)
    assert costs.shape == (2, objects, 7)
    for x, old in zip(inputs, before, strict=True):
        assert torch.equal(x, old)
