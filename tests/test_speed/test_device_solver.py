"""Matching of padded objects: the pairs and losses of SciPy on the objects alone."""

import sys
import types

import pytest
import torch

from mmdet_rfdetr.matching import RFDETRHungarianAssigner
from mmdet_rfdetr.speed.cuda_graphs import RecordableStep
from mmdet_rfdetr.speed.device_solver import (
    PaddedMatches,
    PaddedTargets,
    capacity,
    solve_on_gpu,
)
from tests import parity
from tests.test_matching.test_assigner import make_outputs, make_stages, make_targets
from tests.test_models.small import small_config

GROUPS = 3
SIDE = 64
LOSSES = (
    'RFDETRIoUAwareBCELoss',
    'RFDETRSigmoidFocalLoss',
    'RFDETRVarifocalLoss',
    'RFDETRPositionSupervisedLoss',
)


def on_device():
    return RFDETRHungarianAssigner(solver='device')


def pairs(matches):
    """Stage, image, row and object of the pairs that are no padding, in order."""
    columns = matches.stages, matches.images, matches.rows, matches.targets
    if isinstance(matches, PaddedMatches):
        columns = [column[matches.valid] for column in columns]
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def unpadded(found, targets, size):
    """Pairs with the objects counted without padding."""
    first = [sum(targets.counts[:image]) for image in range(len(targets.counts))]
    return [(s, i, row, first[i] + t - i * size) for s, i, row, t in found]


@pytest.mark.parametrize('counts', [(3, 0, 5), (40, 7, 1), (0, 0, 0), (32, 33, 45)])
@pytest.mark.parametrize('sizes', [(135, 135, 135), (150, 150, 135)])
def test_pairs_are_those_of_scipy(counts, sizes):
    targets = make_targets(*counts)
    outputs = make_outputs(len(counts), sum(sizes))
    queries = min(sizes) // GROUPS
    padded = on_device().prepare(targets, queries)
    size = padded.counts[0]
    assert padded.counts == (size,) * 3 and max(counts) <= size <= queries
    found = on_device().assign(make_stages(*outputs, sizes, GROUPS), padded)
    expected = RFDETRHungarianAssigner().assign(
        make_stages(*outputs, sizes, GROUPS), targets
    )
    assert unpadded(pairs(found), targets, size) == pairs(expected)
    # Padding takes queries that no object has.
    for stage in range(len(sizes)):
        for image in range(len(counts)):
            of_both = (found.stages == stage) & (found.images == image)
            assert len(found.rows[of_both].unique()) == GROUPS * size


def test_equal_costs_are_decided_as_by_scipy():
    targets = make_targets(5, 4)
    logits, boxes = make_outputs(2, 240)
    outputs = logits.round(), (boxes * 4).round() / 4
    padded = on_device().prepare(targets, 40)
    found = on_device().assign(make_stages(*outputs, (120, 120), GROUPS), padded)
    expected = RFDETRHungarianAssigner().assign(
        make_stages(*outputs, (120, 120), GROUPS), targets
    )
    assert unpadded(pairs(found), targets, padded.counts[0]) == pairs(expected)


@pytest.mark.parametrize('value', (float('nan'), float('inf'), -float('inf')))
def test_costs_that_are_not_finite(value):
    """Such pairs are avoided as by SciPy, and padding does not count as one."""
    targets = make_targets(3, 2)
    logits, boxes = make_outputs(2, 240)
    boxes[0, 5:40] = value
    logits[1, 130] = value
    assigner = on_device()
    found = assigner.assign(
        make_stages(logits, boxes, (120, 120), GROUPS), assigner.prepare(targets, 40)
    )
    expected = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, (120, 120), GROUPS), targets
    )
    assert unpadded(pairs(found), targets, 32) == pairs(expected)
    assert found.non_finite
    logits, boxes = make_outputs(2, 240)
    found = assigner.assign(
        make_stages(logits, boxes, (120, 120), GROUPS), assigner.prepare(targets, 40)
    )
    assert not found.non_finite


def test_few_sizes_occur():
    sizes = {capacity((count, 1), 300) for count in range(301)}
    assert sizes == {32, 64, 128, 256, 300}
    assert capacity((64,), 300) == 64
    assert capacity((3,), 20) == 20
    assert capacity((21, 3), 20) is None


def test_too_many_objects_are_left_to_scipy():
    targets = make_targets(5, 3)
    assert on_device().prepare(targets, 4) is targets
    outputs = make_outputs(2, 24)
    found = on_device().assign(make_stages(*outputs, (12, 12), GROUPS), targets)
    expected = RFDETRHungarianAssigner().assign(
        make_stages(*outputs, (12, 12), GROUPS), targets
    )
    assert pairs(found) == pairs(expected)


def test_more_padded_objects_than_queries():
    """A model may have fewer tokens to select from than queries."""
    targets = PaddedTargets.of(make_targets(5, 3), 8)
    with pytest.raises(ValueError, match='padded to 8 objects, and a group has 4'):
        on_device().assign(make_stages(*make_outputs(2, 24), (12, 12), GROUPS), targets)


def test_an_unknown_solver():
    with pytest.raises(ValueError, match="solver='gpu': choose one of"):
        RFDETRHungarianAssigner(solver='gpu')


def model(solver, loss, **changes):
    config = {**small_config(num_queries=40, group_detr=GROUPS), **changes}
    config['bbox_head']['loss_cls'] = dict(type=loss)
    config['train_cfg']['assigner']['solver'] = solver
    return parity.rule_model(config).train()


def batch(counts):
    return parity.rule_batch(((SIDE, SIDE),) * len(counts), counts=counts)


def numbers(built, losses):
    """Losses, figures for the log, and gradients."""
    sum(losses.values()).backward()
    gradients = {
        name: parameter.grad
        for name, parameter in built.named_parameters()
        if parameter.grad is not None
    }
    return {**losses, **losses.figures}, gradients


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            scale = value.abs().max().item() + 1e-6
            torch.testing.assert_close(
                ours[name], value, rtol=0, atol=1e-5 * scale, msg=name
            )


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('counts', [(3, 0), (0, 0), (2, 35)])
def test_losses_errors_and_gradients_are_those_of_scipy(loss, counts):
    images, samples = batch(counts)
    sides = [model(solver, loss) for solver in ('scipy', 'device')]
    expected, found = (
        numbers(side, side(images, samples, mode='loss')) for side in sides
    )
    assert_equal(found, expected)


def test_what_is_recorded_takes_and_gives_tensors():
    """A training step as CUDA graphs record it, without recording it."""
    images, samples = batch((3, 0, 7))
    plain, recorded = (model(solver, LOSSES[0]) for solver in ('scipy', 'device'))
    targets = recorded.recordable_targets(samples)
    step = RecordableStep(recorded, targets.counts)
    terms, figures = step(images, targets.labels, targets.boxes, targets.valid)
    found = numbers(recorded, step.losses(terms, figures))
    assert step.constants
    assert_equal(found, numbers(plain, plain(images, samples, mode='loss')))


def test_padded_batches_and_crowds_are_not_recorded():
    built = model('device', LOSSES[0])
    _, samples = batch((3, 41))
    assert built.recordable_targets(samples) is None
    _, samples = batch((3, 4))
    assert built.recordable_targets(samples) is not None
    samples[1].set_metainfo(dict(img_shape=(SIDE, SIDE // 2)))
    assert built.recordable_targets(samples) is None


def test_padding_keeps_the_objects():
    targets = make_targets(2, 0, 1)
    padded = PaddedTargets.of(targets, 4)
    assert padded.valid.view(3, 4).sum(1).tolist() == [2, 0, 1]
    assert torch.equal(padded.labels[padded.valid], targets.labels)
    assert torch.equal(padded.boxes[padded.valid], targets.boxes)
    assert padded.of_images().tolist() == targets.of_images().tolist() == [2, 0, 1]
    assert padded.total() == targets.total() == 3


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(backbone=dict(with_cp=True)), 'backbone.with_cp=False'),
        (dict(backbone=dict(drop_path_rate=0.1)), 'backbone.drop_path_rate=0'),
        (dict(compile=dict(mode='reduce-overhead')), 'compile.mode=None'),
    ],
)
def test_switches_that_exclude_each_other(changes, words):
    config = small_config()
    if 'backbone' in changes:
        changes = dict(backbone={**config['backbone'], **changes['backbone']})
    with pytest.raises(ValueError, match=words):
        model('device', LOSSES[0], cuda_graphs=True, **changes)


def test_graphs_need_matching_on_the_device():
    with pytest.raises(ValueError, match='train_cfg.assigner.solver=device'):
        model('scipy', LOSSES[0], cuda_graphs=True)


def test_without_its_solver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch_linear_assignment', None)
    with pytest.raises(ImportError, match='pip install "torch-linear-assignment') as e:
        solve_on_gpu(torch.zeros(1, 2, 3))
    assert 'solver=scipy' in str(e.value)


def test_the_solver_is_called_without_its_checks(monkeypatch):
    """Its checks are reads by the host."""
    calls = []

    def solve(costs, *, validation):
        calls.append(validation)
        return costs.argmin(-1)

    package = types.ModuleType('torch_linear_assignment')
    package._triton = types.SimpleNamespace(batch_linear_assignment=solve)
    monkeypatch.setitem(sys.modules, 'torch_linear_assignment', package)
    costs = torch.tensor([[[2.0, 1.0], [0.0, 3.0]]])
    assert solve_on_gpu(costs).tolist() == [[1, 0]]
    assert calls == ['off']
