"""What ``model.compile`` may not change, and what it has to change.

Inductor takes seconds for every kernel; what does not depend on it runs with a backend
that calls the operators as they are.
"""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache

from mmdet_rfdetr.data.sizes import multi_scale_sizes
from mmdet_rfdetr.errors import CompileError
from mmdet_rfdetr.speed import packed_linear
from mmdet_rfdetr.speed.compiled import PARTS
from tests import factory, parity
from tests.test_precision.batches import golden_batch

pytestmark = [
    # PyTorch looks at ``.grad`` of what is not a leaf, and hides the warning.
    pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not'),
    pytest.mark.filterwarnings('ignore:.torch.jit.script_method. is deprecated'),
]
BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')
compile_module = nn.Module.compile


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()
    counters.clear()
    with fresh_cache():
        yield


@pytest.fixture
def unchanged(monkeypatch):
    """Trace the parts as ever, and call their operators as they are."""
    use_backend(monkeypatch, 'eager')


def use_backend(monkeypatch, backend):
    def compile_part(part, dynamic, options):
        compile_module(part, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(nn.Module, 'compile', compile_part)


def model(precision=None, *, compile=None, **backbone):
    changes = {f'backbone.{name}': value for name, value in backbone.items()}
    return factory.build_model(precision=precision, compile=compile, **changes)


def batch(size=factory.SIDE, count=2, padded=False):
    sizes = [(size, size)] * (count - padded) + [(size // 2, size)] * padded
    return parity.rule_batch(
        sizes, (size, size), [2] * count, num_classes=len(factory.CLASSES)
    )


def step(model, images, samples):
    """Losses and gradients of a training step."""
    model.train().zero_grad()
    torch.manual_seed(0)
    losses = model(images, samples, mode='loss')
    sum(losses.values()).backward()
    gradients = {
        f'grad/{name}': parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return {**{name: loss.detach() for name, loss in losses.items()}, **gradients}


@torch.no_grad()
def detect(model, images, samples):
    """Raw outputs and detections."""
    model.eval()
    raw = model(images, samples)
    numbers = {name: raw[name] for name in raw if name.startswith('pred_')}
    for image, sample in enumerate(model(images, samples, mode='predict')):
        detected = sample.pred_instances
        numbers[f'scores/{image}'] = detected.scores
        numbers[f'bboxes/{image}'] = detected.bboxes / factory.SIDE
    return numbers


def assert_close(numbers, expected, tolerance=1e-5):
    assert numbers.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() + 1e-3
        torch.testing.assert_close(
            numbers[name], value, rtol=0, atol=tolerance * scale, msg=name
        )


def compiled_graphs():
    return counters['stats']['unique_graphs']


# Inductor


@pytest.mark.slow
def test_detections_are_those_of_the_plain_model():
    plain, compiled = model(), model(compile={})
    assert_close(detect(compiled, *batch()), detect(plain, *batch()))
    assert compiled_graphs() >= len(PARTS)


@pytest.mark.slow
def test_losses_and_gradients_of_all_parts_and_sizes():
    compiled = model(compile={})
    for size in (16, 24, 32):
        assert_close(step(compiled, *batch(size)), step(model(), *batch(size)))
        assert_close(detect(compiled, *batch(size)), detect(model(), *batch(size)))


@pytest.mark.slow
def test_recomputed_blocks_drop_the_same_paths():
    gradients = [
        step(
            model(
                drop_path_rate=0.5, with_cp=with_cp, compile=dict(parts=['backbone'])
            ),
            *batch(),
        )
        for with_cp in (False, True)
    ]
    assert_close(*gradients)


@pytest.mark.slow
def test_bfloat16_is_as_exact_as_in_the_plain_model():
    """Compiled operators round less often, so the numbers are not the same."""
    images, samples, truth = *batch(), memory(model(), batch()[0])
    plain = memory(model(BFLOAT16), images)
    compiled = model(BFLOAT16, compile={})
    assert 0 < (memory(compiled, images) - truth).norm() < 1.1 * (plain - truth).norm()
    assert all(x.isfinite().all() for x in step(compiled, images, samples).values())


@torch.no_grad()
def memory(model, images):
    with model.precision.autocast(images.device):
        return model.extract_feat(images)[0].float()


def test_without_a_compiler_one_sentence_says_so(monkeypatch):
    monkeypatch.setattr('torch._inductor.config.cpp.cxx', (None, 'no-such-compiler'))
    with pytest.raises(CompileError, match='no-such-compiler.*model.compile=None') as e:
        detect(model(compile=dict(parts=['neck'])), *batch())
    assert '\n' not in str(e.value)


# Every kind of model


@pytest.mark.long
@pytest.mark.parametrize(
    ('backbone', 'padded'),
    [
        pytest.param({}, True, id='padded'),
        pytest.param(dict(with_cp=True, num_registers=2), False, id='recomputed'),
    ],
)
def test_training_and_detecting(backbone, padded, unchanged):
    plain, compiled = model(**backbone), model(compile={}, **backbone)
    data = batch(padded=padded)
    assert_close(step(compiled, *data), step(plain, *data))
    assert_close(detect(compiled, *data), detect(plain, *data))
    assert not counters['graph_break']


def test_training_under_the_precision_policy(unchanged):
    """Autocast and the parts in float32 are traced with the rest."""
    assert_close(
        step(model(BFLOAT16, compile={}), *batch()), step(model(BFLOAT16), *batch())
    )
    assert not counters['graph_break']


@pytest.mark.long
@pytest.mark.parametrize('training', (True, False), ids=('train', 'eval'))
def test_segmentation(training, unchanged):
    plain, images, samples = golden_batch('masks', training=training)
    compiled = copy.deepcopy(plain)
    compiled.compile()
    run = step if training else detect
    assert_close(run(compiled, images, samples), run(plain, images, samples))
    assert all('resize_grid' in reason for reason in counters['graph_break']), counters


@pytest.mark.long
@pytest.mark.parametrize('precision', (None, BFLOAT16), ids=('float32', 'bfloat16'))
def test_a_deployed_model(precision, unchanged, monkeypatch):
    """In either order; a part that was compiled before is compiled anew.

    What is compiled are plain operators. Those of oneDNN round less often in
    bfloat16, so a model that runs without compiling does without them here.
    """
    monkeypatch.setattr(packed_linear, 'packable', lambda dtype: False)
    expected = detect(model(precision).switch_to_deploy(), *batch())
    before = model(precision, compile={})
    detect(before, *batch())
    after = model(precision).switch_to_deploy()
    after.compile()
    for compiled in (before.switch_to_deploy(), after):
        assert_close(detect(compiled, *batch()), expected)
        for part in PARTS:
            assert getattr(compiled, part)._compiled_call_impl is not None
        seen = compiled_graphs()
        detect(compiled, *batch())
        assert compiled_graphs() == seen
    assert not counters['graph_break']


@pytest.mark.slow
def test_eleven_sizes_are_soon_compiled(unchanged):
    compiled = model(compile=dict(parts=['backbone', 'decoder']))
    sizes = multi_scale_sizes(56, 8, range(-5, 6))
    assert len(sizes) == 11
    # The first size, then all sizes, then that of the position table.
    for size in (16, 24, factory.SIDE, 40):
        step(compiled, *batch(size))
    detect(compiled, *batch())
    seen = compiled_graphs()
    for size in sizes:
        step(compiled, *batch(size))
    detect(compiled, *batch())
    assert compiled_graphs() == seen
    assert all('resize_grid' in reason for reason in counters['graph_break']), counters


@pytest.mark.long
def test_gradients_of_a_size_that_changes(monkeypatch):
    """The derivatives, too, are traced for all sizes."""
    use_backend(monkeypatch, 'aot_eager')
    compiled = model(compile=dict(parts=['backbone']))
    for size in (16, 24):
        assert_close(step(compiled, *batch(size)), step(model(), *batch(size)))


# What holds the model


def test_names_stay_and_copies_are_not_compiled(unchanged):
    plain, compiled = model(), model(compile={})
    assert list(compiled.state_dict()) == list(plain.state_dict())
    compiled.load_state_dict(plain.state_dict())
    assert compiled.neck._compiled_call_impl is not None
    assert copy.deepcopy(compiled).neck._compiled_call_impl is None
    assert plain.neck._compiled_call_impl is None


def test_only_the_named_parts_are_compiled(unchanged):
    compiled = model(compile=dict(parts=['decoder', 'neck']))
    assert {
        name
        for name, module in compiled.named_modules()
        if module._compiled_call_impl is not None
    } == {'decoder', 'neck'}


# CUDA graphs, as far as a CPU can tell


@pytest.mark.long
def test_a_step_of_cuda_graphs(unchanged, monkeypatch):
    """It is marked, and what outlives it is a copy."""
    marks = []
    monkeypatch.setattr(
        'torch.compiler.cudagraph_mark_step_begin', lambda: marks.append(1)
    )
    graphs = model(compile=dict(mode='reduce-overhead'))
    expected = step(graphs, *batch())
    gradient = graphs.decoder.norm.weight.grad
    graphs(*batch(), mode='loss')
    assert len(marks) == 2
    assert graphs.decoder.norm.weight.grad is not gradient
    assert torch.equal(
        graphs.decoder.norm.weight.grad, expected['grad/decoder.norm.weight']
    )
    static = {}
    graphs.bbox_head.register_forward_hook(
        lambda module, arguments, outputs: static.update(logits=outputs[0])
    )
    raw = graphs.eval()(*batch())
    assert torch.equal(raw['pred_logits'], static['logits'][-1])
    assert raw['pred_logits'].data_ptr() != static['logits'][-1].data_ptr()


@pytest.mark.parametrize('mode', (None, 'default', 'max-autotune-no-cudagraphs'))
def test_other_modes_record_none(mode, unchanged):
    assert not model(compile=dict(mode=mode)).compilation.records_graphs


# Options


@pytest.mark.parametrize(
    ('options', 'words'),
    (
        (dict(part=['neck']), r"{'part': \['neck'\]}.*'parts', 'mode', 'dynamic'"),
        (dict(parts=['neck', 'nek']), r"parts=\['neck', 'nek'\].*'neck'"),
        (dict(parts='neck'), "parts='neck': give a list"),
        (dict(parts=[]), r'parts=\[\]: give a list'),
        (dict(mode='fast'), "mode='fast': .*'reduce-overhead'"),
        (dict(dynamic='yes'), "dynamic='yes': choose None, True or False"),
    ),
)
def test_options_are_checked(options, words):
    with pytest.raises(ValueError, match=f'model.compile.*{words}'):
        model(compile=options)


def test_what_is_no_dict_is_refused():
    with pytest.raises(ValueError, match='model.compile=True: write None, or a dict'):
        model(compile=True)
