"""Products whose gradients another part of the processor computes sooner."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from mmdet_rfdetr.precision import processor, products

from .recorder import Operators

# Attention -----------------------------------------------------------------------


@pytest.fixture(params=(True, False), ids=('without units', 'with units'))
def attends_in_float32(request, monkeypatch):
    monkeypatch.setattr(products, 'attends_in_float32', lambda: True)
    monkeypatch.setattr(products, 'imitates_bfloat16', lambda: request.param)
    return request.param


def heads():
    """Query, key and value (B, H, N, D/H) as a packed product hands them over."""
    torch.manual_seed(0)
    packed = torch.randn(3, 4, 65, 6, 16).mul(2).bfloat16().transpose(2, 3)
    return [x.requires_grad_() for x in packed.unbind()]


def attention_gradients(function, tensors):
    weights = torch.linspace(-1, 2, 16).to(tensors[0])
    return torch.autograd.grad((function(*tensors) * weights).sum(), tensors)


def test_gradients_of_attention_are_nearer_to_the_truth(attends_in_float32):
    tensors = heads()
    exact = attention_gradients(
        F.scaled_dot_product_attention,
        [x.detach().double().requires_grad_() for x in tensors],
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        plain = attention_gradients(F.scaled_dot_product_attention, tensors)
        with Operators() as seen:
            ours = attention_gradients(products.scaled_dot_product_attention, tensors)
    assert seen.dtypes('attention_for_cpu_backward') == [{torch.float32}]
    for found, theirs, truth in zip(ours, plain, exact, strict=True):
        assert found.dtype == torch.bfloat16
        distances = [(x - truth).norm() / truth.norm() for x in (found, theirs)]
        assert distances[0] <= distances[1] < 0.01


def test_attention_itself_is_as_exact_as_that_of_autocast(attends_in_float32):
    tensors = [x.detach() for x in heads()]
    exact = F.scaled_dot_product_attention(*(x.double() for x in tensors))
    with torch.autocast('cpu', dtype=torch.bfloat16), torch.no_grad():
        plain = F.scaled_dot_product_attention(*tensors)
        detected = products.scaled_dot_product_attention(*tensors)
        with torch.enable_grad():
            trained = products.scaled_dot_product_attention(*tensors)
    assert torch.equal(trained, detected)
    assert attends_in_float32 or torch.equal(trained, plain)
    assert (trained - exact).norm() <= 1.05 * (plain - exact).norm()


def with_strided_heads(x):
    """The numbers of a head do not lie side by side."""
    return x.detach().mT.contiguous().mT


def test_attention_of_any_layout(attends_in_float32):
    tensors = heads()
    strided = [with_strided_heads(x).requires_grad_() for x in tensors]
    grad = with_strided_heads(torch.randn_like(tensors[0]))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        packed = products.scaled_dot_product_attention(*tensors)
        ours = products.scaled_dot_product_attention(*strided)
    assert torch.equal(ours, packed)
    for found, expected in zip(
        torch.autograd.grad(ours, strided, grad),
        torch.autograd.grad(packed, tensors, grad.contiguous()),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_attention_to_nothing(attends_in_float32):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        x = torch.zeros(2, 3, 0, 16, requires_grad=True)
        assert products.scaled_dot_product_attention(x, x, x).shape == x.shape


def test_attention_keeps_no_second_copy_of_its_output(attends_in_float32):
    kept = []

    def keep(saved):
        kept.append(saved)
        return saved

    projection = nn.Linear(96, 96, dtype=torch.bfloat16)
    with (
        saved_tensors_hooks(keep, lambda saved: saved),
        torch.autocast('cpu', dtype=torch.bfloat16),
    ):
        attended = products.scaled_dot_product_attention(*heads())
        projection(attended.transpose(1, 2).flatten(2))
    outputs = [saved for saved in kept if saved.numel() == attended.numel()]
    assert len(outputs) >= 4
    storages = {saved.untyped_storage().data_ptr() for saved in outputs[3:]}
    assert storages == {attended.untyped_storage().data_ptr()}


def test_float32_attention_is_that_of_pytorch(attends_in_float32):
    tensors = [x.detach().float().requires_grad_() for x in heads()]
    with Operators() as seen:
        ours = products.scaled_dot_product_attention(*tensors)
    assert type(ours.grad_fn).__name__ != '_AttentionBackward'
    assert seen.dtypes('attention_for_cpu') == [{torch.float32}]
    assert torch.equal(ours, F.scaled_dot_product_attention(*tensors))


# Linear layers -------------------------------------------------------------------


@pytest.fixture
def by_onednn(monkeypatch):
    if not torch.backends.mkldnn.is_available():
        pytest.skip('PyTorch was built without oneDNN')
    monkeypatch.setattr(products, 'multiplies_by_onednn', lambda: True)


@pytest.mark.parametrize('shape', ((48,), (7, 48), (2, 7, 48)))
@pytest.mark.parametrize('bias', (True, False), ids=('bias', 'no bias'))
def test_a_layer_trained_by_onednn_has_the_same_numbers(by_onednn, shape, bias):
    torch.manual_seed(0)
    layer = products.Linear(48, 33, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    tensors = (x, *layer.parameters())
    results = []
    for function in (products.linear, F.linear):
        with Operators() as seen:
            y = function(x, layer.weight, layer.bias)
            gradients = torch.autograd.grad(y.pow(2).sum(), tensors)
        fused = len(seen.dtypes('_linear_pointwise'))
        assert fused == (2 if function is products.linear else 0)
        results.append((y.detach(), *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('frozen', (0, 1, 2))
def test_onednn_computes_no_gradient_that_nobody_needs(by_onednn, frozen):
    torch.manual_seed(0)
    tensors = [torch.randn(shape) for shape in ((7, 48), (33, 48), (33,))]
    needed = [x.requires_grad_() for i, x in enumerate(tensors) if i != frozen]
    y = products.linear(*tensors)
    with Operators() as seen:
        y.sum().backward()
    products_seen = seen.dtypes('_linear_pointwise') + seen.dtypes('mm')
    assert len(products_seen) == (2 if frozen == 2 else 1)
    assert all(x.grad is not None for x in needed)
    assert tensors[frozen].grad is None


def no_gradients(layer, x):
    with torch.no_grad():
        layer(x)


def bfloat16(layer, x):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        layer(x)


@pytest.mark.parametrize(
    'use',
    (
        no_gradients,
        bfloat16,
        lambda layer, x: layer.double()(x.double()),
        lambda layer, x: layer(x[:0]),
        lambda layer, x: torch.jit.trace(layer, x),
    ),
    ids=('no gradients', 'bfloat16', 'float64', 'no rows', 'traced'),
)
@pytest.mark.filterwarnings('ignore:.torch.jit.trace')
def test_elsewhere_a_layer_is_the_usual_operator(by_onednn, use):
    with Operators() as seen:
        use(products.Linear(48, 33), torch.randn(7, 48))
    assert seen.calls
    assert not seen.dtypes('_linear_pointwise')


# What the processor says ---------------------------------------------------------

X86 = dict(architecture='x86_64', avx512_f=True)
KINDS = {
    'Intel before bfloat16': (dict(X86, cpu_name='Intel Xeon'), (True, True, False)),
    'Intel with AMX': (
        dict(X86, cpu_name='Intel Xeon', avx512_bf16=True, amx_bf16=True),
        (False, False, False),
    ),
    'Zen 4': (dict(X86, cpu_name='AMD EPYC', avx512_bf16=True), (False, True, True)),
    'Zen 3': (
        dict(X86, cpu_name='AMD EPYC', avx512_f=False),
        (True, True, False),
    ),
    'ARM': (dict(architecture='arm64', bf16=True), (False, False, False)),
    'unknown': (None, (False, False, False)),
}


@pytest.mark.parametrize('kind', KINDS)
def test_what_was_not_measured_is_left_to_pytorch(monkeypatch, kind):
    features, expected = KINDS[kind]
    questions = (
        processor.imitates_bfloat16,
        processor.attends_in_float32,
        processor.multiplies_by_onednn,
    )
    if features is None:
        monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    else:
        monkeypatch.setattr(
            torch.cpu, 'get_capabilities', lambda: features, raising=False
        )
    monkeypatch.setattr(torch.backends.mkldnn, 'is_available', lambda: True)
    monkeypatch.setattr(processor, '_features', processor._features.__wrapped__)
    assert tuple(question() for question in questions) == expected
