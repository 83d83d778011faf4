"""Training steps that are recorded, and matched on the GPU, are those that are not."""

import copy
from dataclasses import replace

import pytest
import torch

from mmdet_rfdetr.matching import RFDETRHungarianAssigner
from mmdet_rfdetr.matching.costs import pair_costs
from mmdet_rfdetr.speed.device_solver import DeviceSolver

from ... import parity
from ...test_matching.test_assigner import make_outputs, make_stages, make_targets
from ...test_models.small import small_config
from ...test_precision.project import project_config, run
from ..test_compiled import assert_close
from ..test_device_solver import pairs, unpadded
from .conftest import COMPILING

pytest.importorskip('torch_linear_assignment')
pytestmark = [pytest.mark.filterwarnings(line) for line in COMPILING]
GROUPS = 3


def build(device, **changes):
    config = small_config(num_queries=40, group_detr=GROUPS)
    config['train_cfg']['assigner']['solver'] = 'device'
    return parity.rule_model({**config, **changes}).to(device).train()


def batch(device, counts, side=64, seed=1):
    sizes = ((side, side),) * len(counts)
    images, samples = parity.rule_batch(sizes, counts=counts, seed=seed)
    return images.to(device), [s.to(device) for s in samples]


def numbers(model, *batches):
    """Losses of the last batch, errors, and gradients of all."""
    model.zero_grad()
    for data in batches:
        losses = model(*data, mode='loss')
        sum(losses.values()).backward()
    gradients = {
        f'grad/{name}': parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    terms = {name: loss.detach().clone() for name, loss in losses.items()}
    return {**terms, **losses.figures, **gradients}


@pytest.mark.parametrize('counts', [(3, 0, 5), (40, 7, 1), (0, 0, 0)])
@pytest.mark.parametrize('sizes', [(135, 135, 135), (150, 150, 135)])
@pytest.mark.parametrize('ties', [False, True])
def test_pairs_are_those_of_scipy(counts, sizes, ties, device):
    targets = make_targets(*counts)
    logits, boxes = make_outputs(len(counts), sum(sizes))
    if ties:
        logits, boxes = logits.round(), (boxes * 4).round() / 4
    expected = RFDETRHungarianAssigner().assign(
        make_stages(logits, boxes, sizes, GROUPS), targets
    )
    assigner = RFDETRHungarianAssigner(solver='device')
    padded = assigner.prepare(targets, min(sizes) // GROUPS)
    # The same costs, so that what differs is the solver.
    found = DeviceSolver().match(
        costs_of(logits, boxes, padded).to(device), sizes, GROUPS, on(device, padded)
    )
    assert unpadded(pairs(found), targets, padded.counts[0]) == pairs(expected)


def costs_of(logits, boxes, targets):
    shape = len(targets.counts), -1
    return pair_costs(
        logits,
        boxes,
        targets.labels.view(shape),
        targets.boxes.view(*shape, 4),
        cls_weight=2.0,
        bbox_weight=5.0,
        iou_weight=2.0,
        alpha=0.25,
    )


def on(device, targets):
    moved = {
        name: value.to(device)
        for name, value in vars(targets).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(targets, **moved)


def test_costs_that_are_not_finite(device):
    assigner = RFDETRHungarianAssigner(solver='device')
    targets = assigner.prepare(on(device, make_targets(3, 2)), 40)
    logits, boxes = (x.to(device) for x in make_outputs(2, 240))
    boxes[0, 3] = torch.nan
    found = assigner.assign(make_stages(logits, boxes, (120, 120), GROUPS), targets)
    assert 3 not in found.rows[found.valid & (found.images == 0)]
    assert found.non_finite


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_steps_of_several_shapes_in_turn(dtype, device):
    """Weights change between the steps, as an optimizer changes them."""
    precision = dict(device_type='cuda', dtype=dtype)
    plain = build(device, precision=precision)
    recorded = build(device, precision=precision, cuda_graphs=True)
    tolerance = dict(float32=1e-4, bfloat16=2e-2)[dtype]
    shapes = [((3, 0), 64), ((1, 35), 64), ((2, 2), 96)]
    for seed in range(3):
        for counts, side in shapes:
            data = batch(device, counts, side, seed)
            found, expected = numbers(recorded, data), numbers(plain, data)
            assert_close(found, expected, tolerance)
            with torch.no_grad():
                for a, b in zip(recorded.parameters(), plain.parameters(), strict=True):
                    b.add_(b.grad if b.grad is not None else 0, alpha=-1e-4)
                    a.copy_(b)
    assert len(recorded.step_graphs._steps) == len(shapes)


def test_gradients_of_two_batches_add_up(device):
    plain, recorded = build(device), build(device, cuda_graphs=True)
    batches = [batch(device, (3, 1), seed=seed) for seed in (1, 2)]
    for _ in range(2):
        found, expected = (numbers(model, *batches) for model in (recorded, plain))
        assert_close(found, expected, 1e-4)


def test_compiled_parts_are_recorded(device):
    plain = build(device)
    recorded = build(device, cuda_graphs=True, compile=dict(dynamic=False))
    for seed in (1, 2):
        data = batch(device, (3, 1), seed=seed)
        assert_close(numbers(recorded, data), numbers(plain, data), 1e-4)


def test_a_step_does_not_wait_for_the_gpu(device, no_waiting):
    for model in (build(device), build(device, cuda_graphs=True)):
        data = batch(device, (3, 1))
        numbers(model, data)
        with no_waiting():
            numbers(model, data)


def test_weights_that_moved_are_recorded_anew(device):
    plain, recorded = build(device), build(device, cuda_graphs=True)
    data = batch(device, (3, 1))
    numbers(recorded, data)
    for parameter in recorded.parameters():
        parameter.data = parameter.data.clone()
    twin = copy.deepcopy(recorded)
    for model in (recorded, twin):
        assert_close(numbers(model, data), numbers(plain, data), 1e-4)


def test_padded_batches_crowds_and_evaluation_run_as_ever(device):
    plain, recorded = build(device), build(device, cuda_graphs=True)
    images, samples = batch(device, (3, 2))
    samples[1].set_metainfo(dict(img_shape=(64, 32)))
    for data in ((images, samples), batch(device, (3, 41))):
        assert_close(numbers(recorded, data), numbers(plain, data), 1e-4)
    data = batch(device, (3, 2))
    with torch.no_grad():
        recorded(*data, mode='loss')
        recorded.eval()(*data, mode='loss')
    assert not recorded.step_graphs._steps


def test_a_run_with_validation(device, pictures, tmp_path):
    """EMA, validation and a checkpoint around recorded steps."""
    config = project_config(pictures, tmp_path, 'cuda', 'bfloat16')
    config.model.cuda_graphs = True
    config.model.bbox_head.loss_iou = dict(type='RFDETRGIoULoss', loss_weight=2.0)
    config.model.train_cfg.assigner.solver = 'device'
    config.custom_hooks = [dict(type='RFDETREMAHook')]
    runner = run(config, 'train')
    assert runner.model.step_graphs._steps
