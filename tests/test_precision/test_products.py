"""Bfloat16 products in float32 units: rounded as autocast rounds, and no more."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from mmdet_rfdetr.precision import products

from .recorder import Operators


@pytest.fixture(autouse=True)
def no_units(monkeypatch):
    monkeypatch.setattr(products, 'imitates_bfloat16', lambda: True)


def tensors(*shapes):
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def layer(module):
    """A layer as a function of its input and parameters."""
    return lambda x, weight, bias: functional_call(
        module, dict(weight=weight, bias=bias), (x,)
    )


CASES = {
    'linear': (F.linear, products.linear, ((7, 48), (33, 48), (33,))),
    'linear of a vector': (F.linear, products.linear, ((48,), (33, 48))),
    'linear of matrices': (F.linear, products.linear, ((2, 7, 48), (33, 48), (33,))),
    'conv2d': (F.conv2d, products.conv2d, ((2, 8, 6, 6), (4, 8, 3, 3), (4,))),
    'conv_transpose2d': (
        F.conv_transpose2d,
        products.conv_transpose2d,
        ((2, 8, 6, 6), (8, 4, 2, 2), (4,)),
    ),
    'linear layer': (
        F.linear,
        layer(products.Linear(48, 33)),
        ((7, 48), (33, 48), (33,)),
    ),
    'convolution layer': (
        F.conv2d,
        layer(products.Conv2d(8, 4, 3)),
        ((2, 8, 6, 6), (4, 8, 3, 3), (4,)),
    ),
    'transposed convolution layer': (
        F.conv_transpose2d,
        layer(products.ConvTranspose2d(8, 4, 2)),
        ((2, 8, 6, 6), (8, 4, 2, 2), (4,)),
    ),
    'baddbmm': (
        torch.baddbmm,
        products.baddbmm,
        ((3, 1, 5), (3, 7, 48), (3, 48, 5)),
    ),
    'addmm': (torch.addmm, products.addmm, ((5,), (7, 48), (48, 5))),
    'attention': (
        F.scaled_dot_product_attention,
        products.scaled_dot_product_attention,
        ((2, 3, 16, 8),) * 3,
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_those_of_autocast(name):
    plain, ours, shapes = CASES[name]
    results = []
    for function in (plain, ours):
        inputs = tensors(*shapes)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = function(*inputs)
        assert y.dtype == torch.bfloat16
        y = y.float()
        gradients = torch.autograd.grad(y.pow(2).sum(), inputs)
        for gradient in gradients:
            assert torch.equal(gradient, gradient.bfloat16().float())
        results.append((y.detach(), *gradients))
    for expected, found in zip(*results, strict=True):
        assert found.dtype == torch.float32
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-6 * scale)


def test_the_sum_is_rounded_once():
    inputs = [x.detach() for x in tensors((7, 48), (33, 48), (33,))]
    exact = F.linear(*(x.bfloat16().float() for x in inputs)).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(products.linear(*inputs), exact)


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_outside_of_autocast_nothing_is_rounded(dtype):
    inputs = [x.detach().to(dtype) for x in tensors((7, 48), (33, 48), (33,))]
    assert torch.equal(products.linear(*inputs), F.linear(*inputs))


def test_float64_is_left_alone_as_by_autocast():
    inputs = [x.detach().double() for x in tensors((7, 48), (33, 48), (33,))]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(products.linear(*inputs), F.linear(*inputs))


KEPT = {'attention': [torch.bfloat16] * 4 + [torch.float32]}
"""Dtypes of what gradients need, where that is more than the first argument."""


@pytest.mark.parametrize('name', CASES)
def test_gradients_keep_bfloat16_and_parameters(name):
    _, ours, shapes = CASES[name]
    x, *others = tensors(*shapes)
    weights = [nn.Parameter(other) for other in others]
    kept = []

    def keep(saved):
        kept.append(saved)
        return saved

    with (
        saved_tensors_hooks(keep, lambda saved: saved),
        torch.autocast('cpu', dtype=torch.bfloat16),
    ):
        ours(x * 1, *weights)
    parameters = {weight.data_ptr() for weight in weights}
    copies = [saved for saved in kept if saved.data_ptr() not in parameters]
    expected = KEPT.get(name, [torch.bfloat16])
    assert [saved.dtype for saved in copies] == expected


@pytest.mark.parametrize('name', CASES)
def test_frozen_tensors_get_no_gradient(name):
    _, ours, shapes = CASES[name]
    expected = []
    for frozen in range(-1, len(shapes)):
        inputs = tensors(*shapes)
        if frozen >= 0:
            inputs[frozen].requires_grad_(False)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = ours(*inputs)
        y.float().pow(2).sum().backward()
        expected = expected or [x.grad for x in inputs]
        for index, x in enumerate(inputs):
            if index == frozen:
                assert x.grad is None
            else:
                torch.testing.assert_close(x.grad, expected[index])


def products_of_backward(y):
    """Dtypes of the tensors that are multiplied for the gradients of y."""
    with Operators() as seen:
        y.float().pow(2).sum().backward()
    parts = ('mm', 'convolution', 'attention')
    return [dtypes for part in parts for dtypes in seen.dtypes(part)]


@pytest.mark.parametrize('name', CASES)
def test_gradients_inside_of_autocast_are_computed_in_float32(name):
    _, ours, shapes = CASES[name]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = products_of_backward(ours(*tensors(*shapes)))
    assert found
    assert all(dtypes == {torch.float32} for dtypes in found)


@pytest.mark.parametrize(('frozen', 'count'), (((), 2), ((0,), 1), ((1,), 1)))
def test_gradients_nobody_needs_are_not_computed(frozen, count):
    inputs = tensors((7, 48), (33, 48), (33,))
    for index in frozen:
        inputs[index].requires_grad_(False)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = products.linear(*inputs)
    assert len(products_of_backward(y)) == count


def test_a_transposed_convolution_has_all_options_of_its_layer():
    options = dict(stride=2, padding=1, output_padding=1, groups=2, dilation=2)
    layer = products.ConvTranspose2d(4, 6, 3, **options)
    (x,) = tensors((1, 4, 5, 5))
    plain = F.conv_transpose2d(x, layer.weight, layer.bias, **options)
    assert torch.equal(layer(x), plain)


def test_a_bias_by_name_is_not_lost():
    x, weight, bias = tensors((7, 48), (33, 48), (33,))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        by_name = products.linear(x, weight, bias=bias)
        assert torch.equal(by_name, products.linear(x, weight, bias))
    by_name.float().sum().backward()
    assert torch.equal(bias.grad, torch.full((33,), 7.0))


def test_blocks_are_recomputed_and_have_the_same_gradients(monkeypatch):
    calls = []
    rounded = products._rounded
    monkeypatch.setattr(
        products, '_rounded', lambda *args: calls.append(args) or rounded(*args)
    )
    layer = products.Linear(48, 33)
    (x,) = tensors((7, 48))
    gradients = []
    for recompute in (False, True):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
        gradients.append(torch.autograd.grad(y.float().pow(2).sum(), x)[0])
    assert torch.equal(*gradients)
    assert len(calls) == 3, 'once plain, and twice where the block is recomputed'
