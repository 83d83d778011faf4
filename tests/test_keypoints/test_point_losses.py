"""Losses, costs, fused scores and covariances of points, by themselves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmdet_rfdetr.keypoints.point_losses import (
    TERMS,
    TargetPoints,
    add_point_costs,
    point_losses,
)
from mmdet_rfdetr.keypoints.point_results import decode_points, fuse_scores
from mmdet_rfdetr.keypoints.schema import Schema
from tests.fixtures import load_pair, needs_fixtures, rule

SCHEMA = Schema((4, 0, 2))
CHANNELS = ('x', 'y', 'findable', 'visible', 'log_l11', 'l21', 'log_l22', 'class')


def random_case(count=6, seed=0):
    """Points of all slots, labels, true points and areas of pairs."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(count, SCHEMA.slots, 8, generator=draw)
    labels = torch.randint(0, 3, (count,), generator=draw)
    xy = torch.rand(count, SCHEMA.most, 2, generator=draw)
    visibility = torch.randint(0, 3, (count, SCHEMA.most), generator=draw).float()
    areas = 0.1 + torch.rand(count, generator=draw)
    return points, labels, TargetPoints(xy, visibility), areas


def by_formula(points, label, true, area, index):
    """The four terms of one pair, in plain Python."""
    count = SCHEMA.counts[label] if label < len(SCHEMA.counts) else 0
    sums, labelled = dict.fromkeys(TERMS, 0.0), 0
    for k in range(count):
        x, y, findable, seen, log_l11, l21, log_l22, _ = points[
            label * SCHEMA.most + k
        ].double()
        v = true.visibility[index, k]
        for name, logit, target in (
            ('findable', findable, v > 0),
            ('visible', seen, v > 1),
        ):
            sums[name] += float(F.softplus(logit) - logit * target) / count
        if v > 0:
            labelled += 1
            dx, dy = (torch.stack((x, y)) - true.xy[index, k].double()).tolist()
            sums['l1'] += (abs(dx) + abs(dy)) / float(area) ** 0.5
            along = log_l11.exp() * dx + l21 * dy
            square = along**2 + (log_l22.exp() * dy) ** 2
            sums['nll'] += float(square / 2 / area - log_l11 - log_l22)
    for name in ('l1', 'nll'):
        sums[name] /= max(1, labelled)
    return sums


def test_losses_and_costs_are_those_of_the_formulas():
    points, labels, true, areas = random_case()
    labels[0] = 3  # beyond the schema
    wanted = [
        by_formula(points[i], int(labels[i]), true, areas[i], i)
        for i in range(len(labels))
    ]
    found = losses_of(points, labels, true, areas)
    for name in TERMS:
        expected = torch.tensor([each[name] for each in wanted])
        torch.testing.assert_close(found[name], expected)
        assert not found[name][0]
    # One image, whose queries predict the points of all pairs.
    weights = dict(zip(TERMS, (1.0, 2.0, 3.0, 4.0), strict=True))
    costs = torch.full((1, 6, 6), 0.5)
    of_classes = points[None].unflatten(2, (3, SCHEMA.most))
    add_point_costs(
        costs, of_classes, true, areas, labels[None], SCHEMA.active(), weights
    )
    for row in range(6):
        for query in range(6):
            terms = by_formula(points[query], int(labels[row]), true, areas[row], row)
            total = 0.5 + sum(weights[name] * terms[name] for name in TERMS)
            assert float(costs[0, row, query]) == pytest.approx(total, rel=1e-5)


def losses_of(points, labels, true, areas):
    known = labels < len(SCHEMA.counts)
    labels = labels.clamp(max=len(SCHEMA.counts) - 1)
    rows = torch.arange(len(labels))
    points = points.unflatten(1, (-1, SCHEMA.most))[rows, labels]
    active = SCHEMA.active()[labels] & known[:, None]
    return point_losses(points, true, areas, active)


@pytest.mark.parametrize(
    ('channel', 'value'),
    [('x', np.nan), ('findable', np.inf), ('visible', np.nan), ('log_l22', np.nan),
     ('log_l11', 100.0), ('l21', np.inf)],
)  # fmt: skip
def test_what_is_not_finite_leaves_value_and_gradient(channel, value):
    points, labels, true, areas = random_case()
    labels[:] = 0
    true.visibility[:] = 2
    points[1, 2, CHANNELS.index(channel)] = value
    points.requires_grad_()
    losses = losses_of(points, labels, true, areas)
    sum(each.sum() for each in losses.values()).backward()
    assert points.grad.isfinite().all()
    assert all(each.isfinite().all() for each in losses.values())
    others = points.grad[1, [0, 1, 3]]
    assert others[:, :7].all()


def test_objects_without_area_or_points():
    points, labels, true, areas = random_case()
    labels[:] = 0
    true.visibility[0] = 0
    areas[1] = 0
    losses = losses_of(points, labels, true, areas)
    for name in ('l1', 'nll'):
        assert not losses[name][:2].any() and losses[name][2:].all()
    assert losses['findable'].all()


@pytest.mark.parametrize('precise', (0.0, 1.0))
def test_ellipses_hold_the_part_of_samples_that_they_say(precise):
    """Samples of the density that the loss fits, in pixels of an image."""
    torch.manual_seed(0)
    count, size, area = 40_000, torch.tensor([640.0, 480.0]), torch.tensor(0.03)
    points = torch.tensor([[0.4, 0.6, 2.0, 0.0, precise, 0.8, 0.3 + precise, 0.0]])
    lower = torch.tensor(
        [[points[0, 4].exp(), 0.0], [points[0, 5], points[0, 6].exp()]]
    )
    # |L^T d|^2 / a is the squared length of a standard normal vector.
    normal = torch.randn(count, 2)
    drawn = area.sqrt() * torch.linalg.solve(lower.T, normal.T).T
    drawn = (points[0, :2] + drawn) * size
    owned = torch.ones(1, dtype=torch.bool)
    xy, scores, covariance = decode_points(points, owned, size, area)
    torch.testing.assert_close(xy[0], torch.tensor([256.0, 288.0]))
    assert float(scores) == pytest.approx(0.8808, abs=1e-4)
    distance = drawn - xy[0]
    inverse = torch.linalg.inv(covariance[0])
    lengths = ((distance @ inverse) * distance).sum(1)
    for part in (0.5, 0.9):
        inside = (lengths <= -2 * np.log(1 - part)).float().mean()
        assert float(inside) == pytest.approx(part, abs=0.01)


def test_fused_scores():
    """With unit precision r is s * 2^-0.2, a sharper one raises it."""
    points = torch.zeros(4, 3, 8)
    points[1, :, [4, 6]] = 2.0
    active = torch.tensor([[True, True, False]]).repeat(4, 1)
    points[:, 2, 4] = -5  # not active
    active[2] = False
    known = torch.tensor([True, True, True, False])
    scores = torch.full((4,), 0.99)
    fused = fuse_scores(scores, points, active, known, 0.2)
    r = 0.99 * 2**-0.2
    assert (
        float(fused[0]) == pytest.approx(r / (1 + r)) == pytest.approx(0.463, abs=1e-3)
    )
    assert fused[1] > 0.6
    assert float(fused[2]) == pytest.approx(0.99 / 1.99)
    assert fused[3] == scores[3]


@pytest.fixture(scope='module')
def small():
    return load_pair('keypoint/small')


def fixture_case(description, name, shape):
    """Labels, true points, areas and boxes, and predictions from the rule."""
    seed, schema = description['case_seed'], description['num_keypoints_per_class']
    counts = description['loss_target_counts']
    rules = rule()
    objects = rules.targets(seed, counts, len(schema))
    objects = rules.keypoint_targets(seed, objects, schema)
    labels, boxes, points = (
        torch.from_numpy(np.concatenate([each[key] for each in objects]))
        for key in ('labels', 'boxes', 'keypoints')
    )
    predicted = rules.noise(f'kp/loss/{name}', seed, (*shape, SCHEMA.slots, 8))
    predicted = torch.from_numpy(predicted.astype(np.float32))
    return labels, boxes, TargetPoints(points[..., :2], points[..., 2]), predicted


@needs_fixtures
@pytest.mark.parametrize('case', ('plain', 'odd'))
def test_official_losses(small, case):
    arrays, description = small
    labels, boxes, true, points = fixture_case(description, 'pred', (11,))
    points[..., :2] = boxes[:, None, :2] + 0.3 * points[..., :2] * boxes[:, None, 2:]
    areas = boxes[:, 2:].prod(1)
    if case == 'odd':
        for row, slot, channel, value in description['loss_odd_entries']:
            place = int(labels[row]) * SCHEMA.most + slot
            points[row, place, CHANNELS.index(channel)] = float(value)
        areas[description['loss_odd_zero_area']] = 0
    points.requires_grad_()
    losses = losses_of(points, labels, true, areas)
    weights = zip((1, 1.25, 1.5, 1.75), TERMS, strict=True)
    sum(weight * losses[name].sum() for weight, name in weights).backward()
    for name in TERMS:
        np.testing.assert_allclose(
            losses[name].detach(), arrays[f'loss_{case}_{name}'], rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(
        points.grad, arrays[f'loss_{case}_grad'], rtol=1e-5, atol=1e-6
    )


@needs_fixtures
def test_official_costs(small):
    arrays, description = small
    labels, boxes, true, points = fixture_case(description, 'query', (2, 9))
    areas = boxes[:, 2:].prod(1)
    twice = TargetPoints(*(x.repeat(2, *(1,) * (x.dim() - 1)) for x in true))
    for name in TERMS:
        costs = torch.zeros(2, 11, 9)
        weights = dict(dict.fromkeys(TERMS, 0.0), **{name: 1.0})
        add_point_costs(
            costs,
            points.unflatten(2, (3, SCHEMA.most)),
            twice,
            areas.repeat(2),
            labels.repeat(2, 1),
            SCHEMA.active(),
            weights,
        )
        np.testing.assert_allclose(
            costs.transpose(1, 2), arrays[f'cost_{name}'], rtol=1e-5, atol=1e-6
        )
