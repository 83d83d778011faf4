"""Products under bfloat16, also on processors that cannot multiply bfloat16.

A product of bfloat16 numbers is summed in float32 and rounded once. oneDNN imitates
that on an x86 processor without units for it, and takes several times as long as for
float32. There these functions round what goes in, as autocast does, let the float32
units multiply and add, and round what comes out. Everywhere else they are PyTorch's.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@functools.cache
def imitates_bfloat16() -> bool:
    """Whether this processor is known to have no units for bfloat16 products.

    PyTorch says so where it has ``torch.cpu.get_capabilities``, on x86.
    """
    get_capabilities = getattr(torch.cpu, 'get_capabilities', None)
    if get_capabilities is None:
        return False
    features = get_capabilities()
    # Other architectures name their units otherwise, and were not measured.
    return features.get('architecture') == 'x86_64' and not (
        features.get('avx512_bf16') or features.get('amx_bf16')
    )


def _in_float32_units() -> bool:
    return (
        # First, because torch.compile does not trace a cached function silently.
        not torch.compiler.is_compiling()
        and torch.is_autocast_enabled('cpu')
        and torch.get_autocast_dtype('cpu') == torch.bfloat16
        and imitates_bfloat16()
    )


def _product(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Have a function of PyTorch compute bfloat16 in float32 where that is faster."""

    @functools.wraps(function)
    def product(x: Tensor, *others, **options) -> Tensor:
        if x.is_cpu and _in_float32_units():
            return _rounded(function, x, *others, **options)
        return function(x, *others, **options)

    return product


def _rounded(function: Callable[..., Tensor], *args, **options) -> Tensor:
    """Call ``function`` in float32 on tensors rounded to bfloat16; round the result.

    What the gradient needs of them is kept in bfloat16, which is exact.
    """
    exact = set()

    def as_float32(value):
        if isinstance(value, Tensor):
            value = value.bfloat16().float()
            exact.add(value.data_ptr())
        return value

    args = [as_float32(value) for value in args]
    with torch.autocast('cpu', enabled=False):
        if not torch.is_grad_enabled():
            return function(*args, **options).bfloat16()
        with saved_tensors_hooks(
            lambda saved: saved.bfloat16() if saved.data_ptr() in exact else saved,
            lambda kept: kept.float() if kept.dtype == torch.bfloat16 else kept,
        ):
            return function(*args, **options).bfloat16()


linear = _product(F.linear)
conv2d = _product(F.conv2d)
conv_transpose2d = _product(F.conv_transpose2d)
scaled_dot_product_attention = _product(F.scaled_dot_product_attention)
baddbmm = _product(torch.baddbmm)
addmm = _product(torch.addmm)


class Linear(nn.Linear):
    """PyTorch's layer, its product by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """PyTorch's layer for zero padding, its product by :func:`conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h', w')."""
        return conv2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's layer without further options, by :func:`conv_transpose2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h', w')."""
        return conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding)
