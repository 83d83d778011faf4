import copy

import pytest
import torch

from mmdet_rfdetr.ops import constants
from mmdet_rfdetr.ops.constants import constant


@pytest.fixture
def made():
    """Arguments of each call, and a constant that notes them."""
    calls = []

    @constant
    def numbers(count, device):
        calls.append(count)
        return torch.arange(count, device=device)

    numbers.calls = calls
    return numbers


CPU = torch.device('cpu')


def test_made_once_for_each_size_and_device(made):
    assert made(3, CPU) is made(3, CPU)
    assert made(4, CPU).tolist() == [0, 1, 2, 3]
    assert made(3, torch.device('meta')).is_meta
    assert made.calls == [3, 4, 3]
    made.cache_clear()
    made(3, CPU)
    assert made.calls == [3, 4, 3, 3]


def test_sizes_that_come_no_more_are_freed(made):
    for count in range(2 * constants.MOST_SIZES):
        made(count, CPU)
    del made.calls[:]
    made(2 * constants.MOST_SIZES - 1, CPU)
    assert made.calls == []
    made(0, CPU)
    assert made.calls == [0]


def test_of_inference_mode_and_used_with_gradients(made):
    with torch.inference_mode():
        made(3, CPU)
    weight = torch.ones(3, requires_grad=True)
    (weight * made(3, CPU)).sum().backward()
    assert weight.grad.tolist() == [0, 1, 2]
    assert made.calls == [3]


def test_compiled_functions_make_their_own(made, recwarn):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x + made(len(x), x.device), backend='eager')
    assert compiled(torch.ones(3)).tolist() == [1, 2, 3]
    assert not [w for w in recwarn if 'lru_cache' in str(w.message)]
    copy.deepcopy(made(3, CPU))


@pytest.mark.filterwarnings('ignore:.*torch.jit.trace:DeprecationWarning')
def test_an_export_leaves_no_constant_behind(made):
    class Shift(torch.nn.Module):
        def forward(self, x):
            return x + made(3, x.device)

    torch.export.export(Shift(), (torch.ones(2, 3),))
    torch.jit.trace(Shift(), torch.ones(2, 3))
    assert made(3, CPU).tolist() == [0, 1, 2]
    assert type(made(3, CPU)) is torch.Tensor
