import pytest
import torch
from torch import nn

from mmdet_rfdetr.precision import float32_island


@float32_island()
def product(a, b, *, extra=()):
    return a @ b, [x.dtype for x in extra]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_arguments_and_autocast_stay_outside(dtype):
    a, b = torch.randn(3, 3, dtype=dtype), torch.randn(3, 3)
    with torch.autocast('cpu', dtype=dtype):
        result, dtypes = product(a, b, extra=[a, torch.ones(2, dtype=torch.long)])
        assert torch.is_autocast_enabled('cpu')
    assert dtypes == [torch.float32, torch.long]
    assert torch.equal(result, a.float() @ b)


def test_nested_arguments_are_cast():
    low = torch.zeros(1, dtype=torch.bfloat16)

    @float32_island()
    def dtypes(nested):
        return nested['a'].dtype, nested['b'][0].dtype, nested['b'][1]

    assert dtypes(dict(a=low, b=(low, 'kept'))) == (
        torch.float32,
        torch.float32,
        'kept',
    )


def test_float64_stays():
    a = torch.ones(2, 2, dtype=torch.float64)
    assert product(a, a)[0].dtype == torch.float64


def test_gradients_pass_in_the_callers_dtype():
    a = torch.ones(2, 2, dtype=torch.bfloat16, requires_grad=True)
    product(a, torch.ones(2, 2))[0].sum().backward()
    assert a.grad.dtype == torch.bfloat16
    assert torch.equal(a.grad, torch.full_like(a, 2))


def test_methods_keep_name_and_docstring():
    class Loss(nn.Module):
        @float32_island()
        def forward(self, x):
            """Documented."""
            return x @ x

    assert Loss.forward.__doc__ == 'Documented.'
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert Loss()(torch.ones(2, 2)).dtype == torch.float32


def test_compiled_without_a_graph_break():
    layer = nn.Linear(3, 3)

    def function(x):
        low = layer(x)
        return low, product(low, low)[0]

    compiled = torch.compile(function, backend='eager', fullgraph=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low, high = compiled(torch.randn(3, 3))
    assert low.dtype == torch.bfloat16
    assert high.dtype == torch.float32
    assert torch.equal(high, low.float() @ low.float())
