import math

import pytest
import torch
from torch import nn

from mmdet_rfdetr.models.query_selection import (
    GroupLayerNorm,
    GroupLinear,
    QuerySelection,
    make_proposals,
    unpadded_proposals,
)
from mmdet_rfdetr.ops.boxes import apply_deltas

DIMS, CLASSES, GROUPS = 8, 3, 2


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def proposals_of(shapes, valid_sizes=None):
    whole = torch.tensor([shapes])
    return make_proposals(shapes, whole if valid_sizes is None else valid_sizes)


def test_proposals_are_centred_on_the_cells_in_rows():
    proposals, valid = proposals_of([(2, 4)])
    assert proposals.shape == (1, 8, 4) and valid.all()
    assert proposals[0, 0].tolist() == pytest.approx([1 / 8, 1 / 4, 0.05, 0.05])
    assert proposals[0, 1].tolist() == pytest.approx([3 / 8, 1 / 4, 0.05, 0.05])
    assert proposals[0, 4].tolist() == pytest.approx([1 / 8, 3 / 4, 0.05, 0.05])


def test_proposals_double_from_level_to_level():
    proposals, _ = proposals_of([(2, 2), (1, 1), (1, 1)])
    assert proposals[0, 3:, 2].tolist() == pytest.approx([0.05, 0.1, 0.2])


def test_proposals_are_relative_to_the_unpadded_image():
    proposals, valid = proposals_of([(2, 4)], torch.tensor([[[2, 4]], [[1, 2]]]))
    assert proposals.shape == (2, 8, 4)
    assert proposals[0].equal(proposals_of([(2, 4)])[0][0])
    assert proposals[1, 1].tolist() == pytest.approx([3 / 4, 1 / 2, 0.05, 0.05])
    # Beyond the image: cx = 5 / 4, or cy = 3 / 2.
    assert valid[1].tolist() == [True, True] + [False] * 6


@pytest.mark.parametrize(('side', 'ring'), ((49, False), (50, True), (64, True)))
def test_outermost_ring_of_large_grids_is_invalid(side, ring):
    proposals, valid = proposals_of([(side, 10)])
    rows = valid.view(side, 10)
    assert rows[1:-1].all()
    assert rows[0].any() == rows[-1].any() == (not ring)
    kept, validity = unpadded_proposals(((side, 10),), torch.device('cpu'))
    assert kept.equal(proposals)
    assert validity.equal(valid) if ring else validity is None


@pytest.mark.parametrize('levels', (5, 6))
def test_boxes_of_the_sixth_level_are_larger_than_the_image(levels):
    shapes = ((2, 3),) * levels
    _, valid = proposals_of(shapes)
    _, validity = unpadded_proposals(shapes, torch.device('cpu'))
    assert valid.all() == (levels == 5)
    assert validity is None if levels == 5 else validity.equal(valid)


def test_padded_grid_counts_its_image_only():
    _, valid = proposals_of([(60, 10)], torch.tensor([[[40, 10]]]))
    assert valid.view(60, 10)[:40].all()


def make_selection():
    selection = QuerySelection(embed_dims=DIMS, num_classes=CLASSES, num_groups=GROUPS)
    for parameter in selection.parameters():
        nn.init.normal_(parameter, std=0.5)
    return selection


def slow_selection(selection, memory, proposals, valid, group, count):
    """One group on one image, with ordinary layers."""

    def linear(layer, x):
        return x @ layer.weight[group].T + layer.bias[group]

    memory = memory.clone()
    memory[~valid] = 0
    proposals = proposals.clone()
    proposals[~valid] = 0
    tokens = nn.functional.layer_norm(
        linear(selection.fc, memory),
        (DIMS,),
        selection.norm.weight[group],
        selection.norm.bias[group],
        eps=1e-5,
    )
    scores = linear(selection.fc_cls, tokens)
    order = scores.max(-1).values.argsort(descending=True, stable=True)[:count]
    first, second, last = selection.fc_reg
    hidden = linear(second, linear(first, tokens[order]).relu()).relu()
    boxes = apply_deltas(linear(last, hidden), proposals[order])
    return scores[order], boxes, tokens[order], order


@pytest.mark.parametrize('groups', (1, GROUPS))
def test_each_group_selects_by_its_own_layers(groups):
    selection = make_selection()
    memory = torch.randn(3, 12, DIMS)
    proposals = torch.rand(3, 12, 4)
    valid = torch.rand(3, 12) < 0.8
    valid[:, 0] = False
    found = selection(memory, proposals, valid, num_groups=groups, num_queries=5)
    assert found['indices'].shape == (groups, 3, 5)
    for image in range(3):
        for group in range(groups):
            scores, boxes, tokens, order = slow_selection(
                selection, memory[image], proposals[image], valid[image], group, 5
            )
            queries = slice(5 * group, 5 * group + 5)
            for name, expected in (
                ('cls_scores', scores),
                ('bbox_preds', boxes),
                ('tokens', tokens),
            ):
                torch.testing.assert_close(
                    found[name][image, queries], expected, rtol=1e-4, atol=1e-5
                )
            # Invalid tokens tie; which of them comes first does not matter.
            ours = found['indices'][group, image]
            assert (ours == order)[valid[image, order]].all()


def test_gradients_reach_every_group():
    selection = make_selection()
    found = selection(
        torch.randn(2, 12, DIMS),
        torch.rand(2, 12, 4),
        torch.ones(2, 12, dtype=torch.bool),
        num_groups=GROUPS,
        num_queries=5,
    )
    (found['cls_scores'].sum() + found['bbox_preds'].sum()).backward()
    for parameter in selection.parameters():
        assert parameter.grad.flatten(1).any(1).all()


def test_invalid_tokens_compete_as_zero_rows():
    """They are not left out, and their box is empty."""
    selection = make_selection()
    memory = torch.randn(1, 6, DIMS)
    valid = torch.tensor([[True, True, False, False, False, False]])
    found = selection(memory, torch.rand(1, 6, 4), valid, num_groups=1, num_queries=6)
    order = found['indices'][0, 0].tolist()
    assert sorted(order) == list(range(6))
    invalid = [rank for rank, token in enumerate(order) if token > 1]
    assert not found['bbox_preds'][0, invalid].any()
    rows = found['tokens'][0, invalid]
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))


def test_fewer_tokens_than_queries_are_all_selected():
    selection = make_selection()
    found = selection(
        torch.randn(2, 4, DIMS),
        torch.rand(1, 4, 4),
        torch.ones(1, 4, dtype=torch.bool),
        num_groups=GROUPS,
        num_queries=7,
    )
    assert found['cls_scores'].shape == (2, GROUPS * 4, CLASSES)
    assert found['indices'].sort(-1).values.eq(torch.arange(4)).all()


def test_tokens_with_the_same_score_are_selected_once():
    selection = make_selection()
    memory = torch.randn(1, 1, DIMS).expand(1, 9, DIMS)
    found = selection(
        memory,
        torch.rand(1, 9, 4),
        torch.ones(1, 9, dtype=torch.bool),
        num_groups=1,
        num_queries=5,
    )
    assert len(set(found['indices'].flatten().tolist())) == 5
    scores = found['cls_scores'][0]
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))


def test_scores_are_compared_by_their_best_class():
    selection = make_selection()
    nn.init.zeros_(selection.fc_cls.weight)
    found = selection(
        torch.randn(1, 5, DIMS),
        torch.rand(1, 5, 4),
        torch.ones(1, 5, dtype=torch.bool),
        num_groups=1,
        num_queries=5,
    )
    expected = selection.fc_cls.bias[0].expand(1, 5, CLASSES)
    torch.testing.assert_close(found['cls_scores'], expected)


def test_group_layers_equal_ordinary_layers():
    linear, norm = GroupLinear(3, 4, 5), GroupLayerNorm(3, 5)
    for parameter in (*linear.parameters(), *norm.parameters()):
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 4)
    found = linear(x)
    for group in range(2):
        ordinary = nn.Linear(4, 5)
        ordinary.load_state_dict(
            dict(weight=linear.weight[group], bias=linear.bias[group])
        )
        torch.testing.assert_close(found[group], ordinary(x[group]))
        layer_norm = nn.LayerNorm(5)
        layer_norm.load_state_dict(
            dict(weight=norm.weight[group], bias=norm.bias[group])
        )
        torch.testing.assert_close(norm(found)[group], layer_norm(found[group]))


def test_group_norm_has_the_epsilon_of_a_layer_norm():
    norm = GroupLayerNorm(1, 2)
    x = torch.tensor([[[0.001, -0.001]]])
    torch.testing.assert_close(norm(x)[0, 0, 0], torch.tensor(1e-3 / math.sqrt(1.1e-5)))
