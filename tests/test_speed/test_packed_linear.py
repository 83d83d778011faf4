import copy

import pytest
import torch
import torch.nn.functional as F

from mmdet_rfdetr.speed import packed_linear
from mmdet_rfdetr.speed.packed_linear import PackedLinear, PackedMLP
from tests.kernels import Kernels

ACTIVATIONS = {'none': lambda x: x, 'relu': F.relu, 'gelu': F.gelu}
PACKED = pytest.param(
    True,
    marks=pytest.mark.skipif(
        not packed_linear.packable(torch.float32), reason='PyTorch without oneDNN'
    ),
)


@pytest.fixture(params=(PACKED, False), ids=('packed', 'plain'), autouse=True)
def packed(request, monkeypatch):
    """On a CPU that can, and as everywhere else."""
    torch.manual_seed(0)
    if not request.param:
        monkeypatch.setattr(packed_linear, 'packable', lambda dtype: False)
    return request.param


@pytest.fixture
def linear():
    return torch.nn.Linear(48, 33)


@pytest.mark.parametrize('activation', ACTIVATIONS)
@torch.no_grad()
def test_it_is_one_operator_for_all(linear, activation, packed):
    layer = PackedLinear(linear.weight, linear.bias, activation)
    x, wanted = torch.randn(7, 48), ACTIVATIONS[activation]
    torch.testing.assert_close(layer(x), wanted(linear(x)), rtol=1e-5, atol=1e-6)
    with Kernels() as kernels:
        layer(x)
    operators = {'_linear_pointwise': 1}
    if not packed:
        names = {'none': (), 'relu': ('relu',), 'gelu': ('gelu',)}[activation]
        operators = dict.fromkeys(('addmm', *names), 1)
    assert kernels.launched == operators


@pytest.mark.parametrize('activation', ACTIVATIONS)
@torch.no_grad()
def test_a_residual_is_added_and_left_alone(linear, activation, packed):
    layer = PackedLinear(linear.weight, linear.bias, activation)
    x, residual = torch.randn(7, 48), torch.randn(7, 33)
    before = residual.clone()
    expected = residual + ACTIVATIONS[activation](linear(x))
    torch.testing.assert_close(layer(x, residual), expected)
    assert residual.equal(before)
    with Kernels() as kernels:
        layer(x, residual)
    # One for each of product, activation and sum; packed, two of them are one.
    assert kernels.total == 2 + (activation != 'none') - packed


@torch.no_grad()
def test_packed_weights_follow_the_number_of_rows(linear):
    layer = PackedLinear(linear.weight, linear.bias)
    for shape in ((7,), (64,), (2, 5), (7,), (1,)):
        x = torch.randn(*shape, 48)
        torch.testing.assert_close(layer(x), linear(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('activation', ACTIVATIONS)
@torch.no_grad()
def test_in_bfloat16_only_the_last_rounding_is_seen(linear, activation):
    """A residual in float32 keeps its precision."""
    low = PackedLinear(linear.weight, linear.bias, activation).bfloat16()
    x, residual = torch.randn(7, 48), torch.randn(7, 33)
    exact = ACTIVATIONS[activation](
        F.linear(x.bfloat16().float(), low.weight.float(), low.bias.float())
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found, added = low(x), low(x, residual)
    assert found.dtype == torch.bfloat16 and added.dtype == torch.float32
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=2**-9)
    torch.testing.assert_close(added, residual + found, rtol=0, atol=0)


def test_gradients_of_the_input_are_kept(linear):
    layer = PackedLinear(linear.weight, linear.bias, 'relu')
    x = torch.randn(7, 48, requires_grad=True)
    found, wanted = (torch.autograd.grad(f(x).relu().sum(), x) for f in (layer, linear))
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_packed_weights_follow_the_dtype(linear):
    layer, x = PackedLinear(linear.weight, linear.bias), torch.randn(7, 48)
    layer(x)
    found = layer.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), linear(x), rtol=2**-6, atol=2**-6)


@torch.no_grad()
def test_copies_pack_for_themselves(linear):
    layer, x = PackedLinear(linear.weight, linear.bias), torch.randn(7, 48)
    layer(x)
    twin = copy.deepcopy(layer)
    twin.weight.mul_(2)
    torch.testing.assert_close(twin(x) - linear.bias, 2 * (layer(x) - linear.bias))


@torch.no_grad()
def test_layers_with_relu_between(linear):
    last = torch.nn.Linear(33, 4)
    layers = [(layer.weight, layer.bias) for layer in (linear, last)]
    x = torch.randn(2, 7, 48)
    torch.testing.assert_close(PackedMLP(layers)(x), last(linear(x).relu()))
