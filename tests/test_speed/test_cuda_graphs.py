"""What recorded work may do, seen without a GPU; ``tests/gpu`` records it."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmdet_rfdetr.errors import CompileError, RecordingError
from mmdet_rfdetr.speed.compiled import Compilation
from mmdet_rfdetr.speed.cuda_graphs import (
    RecordableStep,
    recording,
    silence_streams_of_graphs,
)
from tests import parity

from ..test_models.small import small_config

SIDE = 64
BATCH = 2
CAPACITY = 40


class HostTensors(TorchDispatchMode):
    """Notes operators that bring a tensor of the host to the device.

    The device is ``meta``, which has no numbers: to read one is an error there.
    """

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.device.type for x in tensors((args, kwargs)) if x.dim()}
        if on_device(result) and 'cpu' in given:
            self.seen.append(function.name())
        return result


class HostNumbers(TorchFunctionMode):
    """Notes functions that make a tensor on the device of numbers in Python."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in MAKERS and on_device(result):
            self.seen.append(function.__name__)
        return result


MAKERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)


def on_device(result):
    return any(x.device.type == 'meta' for x in tensors(result))


def tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def model(**head):
    config = small_config(num_queries=CAPACITY)
    config['train_cfg']['assigner']['solver'] = 'device'
    config['bbox_head'].update(head)
    return MODELS.build(config).to('meta')


@pytest.fixture
def solved(monkeypatch):
    """An assignment without a look at the costs."""
    monkeypatch.setattr(
        'mmdet_rfdetr.speed.device_solver._solve',
        lambda problems: problems.new_zeros(problems.shape[:2], dtype=torch.long),
    )


def copies(work, *inputs):
    work(*inputs)  # Makes the constants of this size.
    seen = []
    with HostTensors(seen), HostNumbers(seen):
        work(*inputs)
    return seen


def step_inputs():
    objects = BATCH * CAPACITY
    return (
        torch.empty(BATCH, 3, SIDE, SIDE, device='meta'),
        torch.empty(objects, dtype=torch.long, device='meta'),
        torch.empty(objects, 4, device='meta'),
        torch.empty(objects, dtype=torch.bool, device='meta'),
    )


LOSSES = (
    'RFDETRIoUAwareBCELoss',
    'RFDETRSigmoidFocalLoss',
    'RFDETRVarifocalLoss',
    'RFDETRPositionSupervisedLoss',
)


@pytest.mark.parametrize('loss', LOSSES)
def test_a_recorded_step_needs_nothing_of_the_host(loss, solved):
    step = RecordableStep(model(loss_cls=dict(type=loss)).train(), (CAPACITY,) * BATCH)
    assert not copies(step, *step_inputs())


def test_such_a_copy_would_be_seen(solved):
    """The loss of mmdet copies a constant in every call."""
    with_copy = model(loss_iou=dict(type='GIoULoss')).train()
    step = RecordableStep(with_copy, (CAPACITY,) * BATCH)
    assert copies(step, *step_inputs()) == ['new_tensor']


@pytest.mark.parametrize('deployed', (False, True))
def test_a_recorded_detection_needs_nothing_of_the_host(deployed):
    built = model().eval()
    if deployed:
        built.switch_to_deploy()
    images, *_ = step_inputs()
    scales = torch.empty(BATCH, 1, 4, device='meta')
    with torch.no_grad():
        assert not copies(built.detect, images, scales)


# When something is recorded, with a recorder that leaves the work as it is


@pytest.fixture
def recorded(monkeypatch):
    """The shapes that were recorded."""
    shapes = []

    def record(step, inputs, **options):
        shapes.append([tuple(x.shape) for x in inputs])
        forward = step.forward

        def replay(*inputs):
            losses, errors = forward(*inputs)
            # A recording hands out everything by one function that has gradients.
            return losses, errors + 0 * losses.sum()

        step.forward = replay
        return step

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', record)
    monkeypatch.setattr(torch.cuda, 'graph_pool_handle', lambda: (0, 1))
    return shapes


def recording_model():
    config = small_config(num_queries=CAPACITY)
    config['train_cfg']['assigner']['solver'] = 'device'
    torch.manual_seed(0)
    return MODELS.build(dict(config, cuda_graphs=True)).train()


def recorded_loss(built, counts=(3, 1)):
    images, samples = batch(counts)
    return built.step_graphs(images, built.recordable_targets(samples))


def test_a_step_is_recorded_once_for_each_shape(recorded):
    built = recording_model()
    for counts in ((3, 1), (0, 7), (33, 2), (40, 40), (3, 1)):
        recorded_loss(built, counts)
    assert [shapes[1] for shapes in recorded] == [(2 * 32,), (2 * CAPACITY,)]


def test_a_step_is_recorded_anew_when_the_model_changed(recorded, monkeypatch):
    monkeypatch.setattr(Compilation, 'apply', lambda self, model: None)
    built = recording_model()
    recorded_loss(built)
    with torch.no_grad():  # As an optimizer does it.
        built.query_embedding.add_(1)
    recorded_loss(built)
    assert len(recorded) == 1
    built.query_embedding.data = built.query_embedding.data.clone()
    recorded_loss(built)
    assert len(recorded) == 2
    built.compile(parts=['neck'])
    recorded_loss(built)
    assert len(recorded) == 3
    monkeypatch.setattr('mmdet_rfdetr.speed.cuda_graphs._precision', lambda: 'half')
    recorded_loss(built)
    assert len(recorded) == 4


def test_what_a_step_leaves_is_no_part_of_it(recorded):
    """Figures for the log hold no graph; gradients are not where the next are made."""
    built = recording_model()
    losses = recorded_loss(built)
    sum(losses.values()).backward()
    assert not any(figure.requires_grad for figure in losses.figures.values())
    first = built.query_embedding.grad
    expected = first.clone()
    recorded_loss(built)
    assert built.query_embedding.grad is not first
    assert torch.equal(built.query_embedding.grad, expected)
    copy.deepcopy(built)


def test_several_processes_are_refused(recorded, monkeypatch):
    monkeypatch.setattr('mmdet_rfdetr.speed.cuda_graphs.get_world_size', lambda: 2)
    with pytest.raises(RecordingError, match='leave it out to train with several'):
        recorded_loss(recording_model())


# Without a GPU nothing is recorded


def batch(counts=(3, 1)):
    return parity.rule_batch([(SIDE, SIDE)] * BATCH, counts=counts)


def test_on_a_cpu_both_switches_do_nothing():
    recording = recording_model()
    plain = copy.deepcopy(recording)
    plain.step_graphs = None
    images, samples = batch()
    for built in (recording, plain):
        built.train()(images, samples, mode='loss')
    assert not recording.step_graphs._steps
    found = []
    for built, switch in ((recording, True), (plain, False)):
        built.eval().switch_to_deploy(cuda_graphs=switch)
        with torch.no_grad():
            detected = built(images, copy.deepcopy(samples), mode='predict')
        found.append(torch.stack([s.pred_instances.scores for s in detected]))
    assert torch.equal(*found)
    assert not recording.graphs._graphs


def test_a_copy_has_graphs_of_its_own():
    first = recording_model()
    second = copy.deepcopy(first)
    assert second.step_graphs._model is second
    first.switch_to_deploy(cuda_graphs=True)
    third = copy.deepcopy(first)
    assert third.graphs._function.__self__ is third


def test_calling_modules_eagerly_is_undone():
    built = recording_model()
    graphs = built.step_graphs
    with pytest.raises(KeyError), built.eagerly():
        assert built.step_graphs is None
        raise KeyError
    assert built.step_graphs is graphs


def test_weights_that_move_and_parts_that_are_compiled_are_recorded_anew():
    built = MODELS.build(small_config()).switch_to_deploy(cuda_graphs=True)
    for change in (built.double, lambda: built.compile(parts=['neck'])):
        built.graphs._graphs['a shape'] = 'a graph'
        change()
        assert not built.graphs._graphs


def test_a_recording_that_fails_is_explained():
    assert torch.is_autocast_cache_enabled()
    words = 'the switch.*failed: no. A part'
    with pytest.raises(RecordingError, match=words) as e, recording('the switch'):
        assert not torch.is_autocast_cache_enabled()
        raise RuntimeError('no\nand a long story')
    assert 'story' not in str(e.value)
    assert torch.is_autocast_cache_enabled()
    with pytest.raises(CompileError), recording('the switch'):
        raise CompileError('has its own words')


def test_graphs_within_graphs_are_refused():
    built = MODELS.build(dict(small_config(), compile=dict(mode='reduce-overhead')))
    with pytest.raises(ValueError, match='set model.compile.mode to None'):
        built.switch_to_deploy(cuda_graphs=True)
    assert not built.deployed
    with pytest.raises(ValueError, match='model.compile.mode=None'):
        recording_model().compile(mode='reduce-overhead')


def test_streams_of_graphs_are_silenced_where_torch_warns(monkeypatch):
    name = 'set_warn_on_accumulate_grad_stream_mismatch'
    calls = []
    monkeypatch.setattr(torch.autograd.graph, name, calls.append, raising=False)
    silence_streams_of_graphs()
    assert calls == [False]
    monkeypatch.delattr(torch.autograd.graph, name)
    silence_streams_of_graphs()
    assert calls == [False]
