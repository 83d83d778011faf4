import logging

import pytest
import torch
from mmengine.logging import MMLogger
from scipy.optimize import linear_sum_assignment

from mmdet_rfdetr.matching import Stages, Targets
from mmdet_rfdetr.matching.assigner import SOLVERS, RFDETRHungarianAssigner
from mmdet_rfdetr.ops.boxes import cxcywh_to_xyxy

CLASSES = 4


def make_targets(*counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    centres = 0.2 + 0.6 * torch.rand(total, 2, generator=generator)
    sizes = 0.1 + 0.3 * torch.rand(total, 2, generator=generator)
    return Targets(
        labels=torch.randint(CLASSES, (total,), generator=generator),
        boxes=torch.cat((centres, sizes), dim=1),
        counts=counts,
    )


def make_outputs(batch, rows, seed=1):
    """Logits and boxes; some boxes have a negative size, others lie outside."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, rows, CLASSES, generator=generator)
    boxes = torch.rand(batch, rows, 4, generator=generator) * 1.4 - 0.2
    return logits, boxes


def make_stages(logits, boxes, sizes, num_groups=1):
    return Stages(logits.split(sizes, 1), boxes.split(sizes, 1), num_groups)


def pairs_of(matches, stage, image):
    """(query of the stage, object of the batch) of each pair, in order."""
    chosen = (matches.stages == stage) & (matches.images == image)
    first = sum(matches.stage_sizes[:stage])
    return list(
        zip(
            (matches.rows[chosen] - first).tolist(),
            matches.targets[chosen].tolist(),
            strict=True,
        )
    )


def test_pairs_are_in_order():
    """By stage, image, group and query: random points of the masks depend on it."""
    targets = make_targets(2, 3)
    logits, boxes = make_outputs(2, 24)
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (12, 12), 3), targets
    )
    order = list(
        zip(
            matches.stages.tolist(),
            matches.images.tolist(),
            matches.rows.tolist(),
            strict=True,
        )
    )
    assert order == sorted(order) and len(order) == 2 * 3 * 5
    assert matches.pair_counts == ((6, 9), (6, 9))
    for stage in (0, 1):
        of_stage = matches.stages == stage
        rows = matches.rows[of_stage] - sum(matches.stage_sizes[:stage])
        objects = matches.targets[of_stage]
        pairs = pairs_of(matches, stage, 0) + pairs_of(matches, stage, 1)
        assert list(zip(rows.tolist(), objects.tolist(), strict=True)) == pairs


@pytest.mark.parametrize('counts', ((0, 0), (0,)))
def test_no_objects_at_all(counts):
    logits, boxes = make_outputs(len(counts), 12)
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (6, 6), 2), make_targets(*counts)
    )
    assert matches.rows.shape == (0,) and matches.rows.dtype == torch.long
    assert matches.sum_by_stage(torch.zeros(0)).tolist() == [0, 0]


def test_weights_of_the_costs():
    """With one weight only, a pair is chosen by that part of the cost alone."""
    targets = Targets(
        labels=torch.tensor([1]),
        boxes=torch.tensor([[0.5, 0.5, 0.2, 0.2]]),
        counts=(1,),
    )
    logits = torch.tensor([[[0.0, 5, 0, 0], [0, 0, 0, 0], [0, -5, 0, 0]]])
    boxes = torch.tensor(
        [[[0.9, 0.9, 0.1, 0.1], [0.5, 0.5, 0.5, 0.5], [0.62, 0.5, 0.2, 0.2]]]
    )
    only = dict(cls_weight=0.0, bbox_weight=0.0, iou_weight=0.0)
    for weight, expected in (('cls_weight', 0), ('bbox_weight', 2)):
        assigner = RFDETRHungarianAssigner(**{**only, weight: 1.0})
        assert (
            assigner.assign(make_stages(logits, boxes, (3,), 1), targets).rows
            == expected
        )
    # IoU of query 1: 0.04 / 0.25; of query 2: 0.08 * 0.2 / 0.064.
    assigner = RFDETRHungarianAssigner(**{**only, 'iou_weight': 1.0})
    assert assigner.assign(make_stages(logits, boxes, (3,), 1), targets).rows == 2


@pytest.fixture
def log():
    """Function that gives the text of all messages that were logged in a test."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    MMLogger.get_instance('test_matching').addHandler(handler)
    return lambda: '\n'.join(messages)


def test_more_objects_than_queries_is_told_once(log):
    targets = make_targets(5, 1)
    logits, boxes = make_outputs(2, 6)
    assigner = RFDETRHungarianAssigner()
    for _ in range(2):
        matches = assigner.assign(make_stages(logits, boxes, (6,), 2), targets)
    pairs = pairs_of(matches, 0, 0)
    assert [query for query, _ in pairs] == [0, 1, 2, 3, 4, 5]
    for group in (pairs[:3], pairs[3:]):
        assert len({target for _, target in group}) == 3
    assert matches.pair_counts == ((6, 2),)
    assert log().count('5 objects and a group has 3 queries') == 1
    assert 'model.num_queries' in log()


def test_more_objects_than_tokens_asks_for_larger_images(log):
    logits, boxes = make_outputs(1, 10)
    RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (6, 4), 2), make_targets(3)
    )
    assert '3 objects and the feature maps have 2 tokens' in log()
    assert 'image_size' in log()


def test_as_many_objects_as_queries_is_fine(log):
    logits, boxes = make_outputs(1, 6)
    RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (6,), 2), make_targets(3)
    )
    assert log() == ''


@pytest.mark.parametrize('solver', SOLVERS)
def test_costs_that_are_not_finite_are_noted(solver, log):
    assigner = RFDETRHungarianAssigner(solver=solver)
    targets = assigner.prepare(make_targets(2), 40)
    with torch.inference_mode():
        logits, boxes = make_outputs(1, 40)
        matches = assigner.assign(make_stages(logits, boxes, (40,)), targets)
        assert not matches.non_finite
        matches = assigner.assign(
            make_stages(logits, boxes * float('nan'), (40,)), targets
        )
    assert matches.non_finite


@pytest.mark.parametrize('value', (float('nan'), float('inf'), -float('inf')))
def test_costs_that_are_not_finite_are_avoided(value, log):
    targets = make_targets(2, 2)
    logits, boxes = make_outputs(2, 5)
    boxes[0, :3] = value
    assigner = RFDETRHungarianAssigner()
    for _ in range(2):
        matches = assigner.assign(make_stages(logits, boxes, (5,), 1), targets)
    assert {query for query, _ in pairs_of(matches, 0, 0)} == {3, 4}
    assert log().count('not finite') == 1
    # The other image is matched as if nothing had happened.
    boxes[0] = 0.5
    again = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (5,), 1), targets
    )
    assert pairs_of(again, 0, 1) == pairs_of(matches, 0, 1)


def test_the_worst_finite_cost_beats_one_that_is_not(log):
    logits, boxes = make_outputs(1, 3)
    boxes[0, :2] = float('nan')
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (3,), 1), make_targets(1)
    )
    assert matches.rows == 2


def test_no_finite_cost_at_all(log):
    logits, boxes = make_outputs(1, 4)
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits * float('nan'), boxes, (4,)), make_targets(3)
    )
    assert len(set(matches.rows.tolist())) == 3
    assert 'not finite' in log()


def test_padding_is_not_taken_for_a_broken_cost(log):
    """Rows of an image are filled up with objects of class 0, which nobody has."""
    targets = make_targets(3, 1)
    targets.labels[3] = 2
    logits, boxes = make_outputs(2, 4)
    logits[1, :, 0] = float('nan')
    RFDETRHungarianAssigner().assign(make_stages(logits, boxes, (4,), 1), targets)
    assert log() == ''


def test_padded_index():
    index = make_targets(0, 2, 1).padded_index()
    assert index.tolist() == [[0, 0], [0, 1], [2, 0]]


def plain_assignment(logits, boxes, targets, stage_sizes, groups):
    """Pairs of SciPy's solver on the cost matrix written down in float64."""
    pairs, start = [], 0
    for stage, size in enumerate(stage_sizes):
        first = 0
        for image, count in enumerate(targets.counts):
            for group in range(groups):
                rows = range(
                    start + group * size // groups, start + (group + 1) * size // groups
                )
                costs = plain_costs(
                    logits[image, rows],
                    boxes[image, rows],
                    targets.labels[first : first + count],
                    targets.boxes[first : first + count],
                )
                found = linear_sum_assignment(costs.numpy())
                pairs += [
                    (stage, image, rows[query], first + column)
                    for query, column in zip(*found, strict=True)
                ]
            first += count
        start += size
    return pairs


def plain_costs(logits, boxes, labels, their_boxes):
    """(queries, objects) float64, by mmdet's and torchvision's kind of formulas."""
    p = logits.double().sigmoid()[:, labels]
    costs = 2 * (0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log())
    ours, theirs = boxes.double()[:, None], their_boxes.double()[None]
    costs += 5 * (ours - theirs).abs().sum(-1)
    ours, theirs = cxcywh_to_xyxy(ours), cxcywh_to_xyxy(theirs)
    low, high = torch.maximum, torch.minimum
    overlap = high(ours[..., 2:], theirs[..., 2:]) - low(ours[..., :2], theirs[..., :2])
    overlap = overlap.clamp(min=0).prod(-1)
    areas = sum((x[..., 2:] - x[..., :2]).prod(-1) for x in (ours, theirs))
    hull = high(ours[..., :2], theirs[..., :2]), low(ours[..., 2:], theirs[..., 2:])
    hull = (hull[1] - hull[0]).prod(-1)
    union = areas - overlap
    return costs - 2 * (overlap / union - (hull - union) / hull)


@pytest.mark.parametrize(
    'counts',
    ((3, 20), (CLASSES + 1, 0), (40, 40), (50, 1)),
    ids=('few', 'more than classes', 'as many as queries', 'more than queries'),
)
def test_equal_to_scipy_on_the_plain_costs(counts):
    targets = make_targets(*counts)
    stage_sizes, groups = (120, 120, 90), 3
    logits, boxes = make_outputs(2, sum(stage_sizes))
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, stage_sizes, groups), targets
    )
    found = list(
        zip(
            *(
                x.tolist()
                for x in (matches.stages, matches.images, matches.rows, matches.targets)
            ),
            strict=True,
        )
    )
    assert found == plain_assignment(logits, boxes, targets, stage_sizes, groups)


def test_ties_are_broken_as_by_the_solver():
    """Queries that are all alike, as at the beginning of a training."""
    targets = make_targets(3)
    logits, boxes = torch.zeros(1, 8, CLASSES), torch.full((1, 8, 4), 0.5)
    matches = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (8,), 2), targets
    )
    costs = plain_costs(logits[0, :4], boxes[0, :4], targets.labels, targets.boxes)
    queries, objects = linear_sum_assignment(costs.numpy())
    assert matches.rows.tolist() == [*queries, *(queries + 4)]
    assert matches.targets.tolist() == [*objects, *objects]
