"""Products by what computes them fastest on a CPU, with the rounding of PyTorch's.

A product of bfloat16 numbers is summed in float32 and rounded once. oneDNN imitates
that on an x86 processor without units for it, and takes several times as long as for
float32. There these functions round what goes in, as autocast does, let the float32
units multiply and add, and round what comes out. Gradients of attention are computed
so with such units as well, and linear layers are trained in float32 by oneDNN where
MKL is slower. Everywhere else the functions are PyTorch's.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .processor import attends_in_float32, imitates_bfloat16, multiplies_by_onednn


def _autocasts_to_bfloat16(x: Tensor) -> bool:
    return (
        x.is_cpu
        # Before the others, because torch.compile does not trace a cached function
        # silently.
        and not torch.compiler.is_compiling()
        and torch.is_autocast_enabled('cpu')
        and torch.get_autocast_dtype('cpu') == torch.bfloat16
        and x.dtype != torch.float64  # autocast leaves it alone
    )


def _in_float32_units(x: Tensor) -> bool:
    return _autocasts_to_bfloat16(x) and imitates_bfloat16()


def _is_trained_by_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and not torch.compiler.is_compiling()
        # Exporters and counters of FLOPs, which do without gradients or trace, know
        # the usual operators.
        and torch.is_grad_enabled()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled('cpu')
        and x.numel() > 0
        and multiplies_by_onednn()
    )


def _multiply(
    function: Callable[..., Tensor], *tensors: Tensor | None, **options
) -> Tensor:
    """Call a function of PyTorch, for bfloat16 in float32 where that is faster.

    Tensors that can have gradients are passed by position, options by name.
    """
    if not _in_float32_units(tensors[0]):
        return function(*tensors, **options)
    # An autograd function keeps its tensors while it runs, even without a graph.
    if torch.is_grad_enabled():
        return _Recomputed.apply(function, options, *tensors)
    return _rounded(function, tensors, options)


def _rounded(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], options: dict
) -> Tensor:
    """Call ``function`` in float32 on tensors rounded to bfloat16; round the result."""
    with torch.autocast('cpu', enabled=False):
        return function(*map(_as_float32, tensors), **options).bfloat16()


def _as_float32(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.bfloat16().float()


def _save(ctx: FunctionCtx, *tensors: Tensor | None) -> list[Tensor | None]:
    """Keep parameters for the backward, which live on anyway, and the rest rounded.

    Returns:
        All of them rounded to bfloat16.
    """
    rounded = [None if x is None else x.bfloat16() for x in tensors]
    ctx.save_for_backward(
        *(
            x if isinstance(x, nn.Parameter) else low
            for x, low in zip(tensors, rounded, strict=True)
        )
    )
    return rounded


class _Linear(torch.autograd.Function):
    """:func:`F.linear` in float32 units; gradients are rounded as autocast's are."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return _rounded(F.linear, (*_save(ctx, x, weight), bias), {})

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_x, for_weight, for_bias = ctx.needs_input_grad
        x, weight = map(_as_float32, ctx.saved_tensors)
        grad = grad.float()
        rows, x_rows = (rows.reshape(-1, rows.shape[-1]) for rows in (grad, x))
        with torch.autocast('cpu', enabled=False):
            return (
                (grad @ weight).bfloat16() if for_x else None,
                (rows.T @ x_rows).bfloat16() if for_weight else None,
                rows.sum(0).bfloat16() if for_bias else None,
            )


class _LinearByOneDNN(torch.autograd.Function):
    """:func:`F.linear` in float32, all but the gradient of the weights by oneDNN."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        for_x, for_weight, for_bias = ctx.needs_input_grad
        x, weight = ctx.saved_tensors
        rows, x_rows = (rows.reshape(-1, rows.shape[-1]) for rows in (grad, x))
        with torch.autocast('cpu', enabled=False):
            return (
                _by_onednn(grad, weight.T, None) if for_x else None,
                rows.T @ x_rows if for_weight else None,
                rows.sum(0) if for_bias else None,
            )


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


def _with_heads_in_rows(x: Tensor) -> Tensor:
    """Let the numbers of a head lie side by side, as the operator takes for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Attention(torch.autograd.Function):
    """:func:`F.scaled_dot_product_attention` with its gradients in float32 units."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tensors = [_with_heads_in_rows(x.bfloat16()) for x in (query, key, value)]
        units = torch.float32 if imitates_bfloat16() else torch.bfloat16
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        attended, log_sums = attend(*(x.to(units) for x in tensors))
        attended = attended.bfloat16()
        ctx.save_for_backward(*tensors, attended, log_sums)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        tensors = [x.float() for x in (grad, *ctx.saved_tensors)]
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients = attend(*tensors, dropout_p=0.0, is_causal=False)
        return tuple(x.bfloat16() for x in gradients)


class _Recomputed(torch.autograd.Function):
    """Any function in float32 units, which its backward calls once more.

    What a function saves by itself would be float32, twice of what autocast keeps.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        function: Callable[..., Tensor],
        options: dict,
        *tensors: Tensor | None,
    ) -> Tensor:
        ctx.function, ctx.options = function, options
        return _rounded(function, _save(ctx, *tensors), options)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        tensors = [_as_float32(x) for x in ctx.saved_tensors]
        wanted = [x for x, need in zip(tensors, needed, strict=True) if need]
        with torch.enable_grad(), torch.autocast('cpu', enabled=False):
            for x in wanted:
                x.requires_grad_()
            y = ctx.function(*tensors, **ctx.options)
            found = iter(torch.autograd.grad(y, wanted, grad.float()))
        return None, None, *(next(found).bfloat16() if n else None for n in needed)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`F.linear`: (..., in), (out, in) and (out,) to (..., out)."""
    if _is_trained_by_onednn(x, weight):
        return _LinearByOneDNN.apply(x, weight, bias)
    if not _in_float32_units(x):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _rounded(F.linear, (x, weight, bias), {})


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """:func:`F.scaled_dot_product_attention` without options, on (B, H, N, D/H)."""
    tensors = query, key, value
    if _autocasts_to_bfloat16(query) and attends_in_float32():
        # The operator itself would divide by the number of tokens.
        if torch.is_grad_enabled() and query.numel():
            return _Attention.apply(*tensors)
        if imitates_bfloat16():
            return _rounded(F.scaled_dot_product_attention, tensors, {})
    return F.scaled_dot_product_attention(*tensors)


conv2d = functools.partial(_multiply, F.conv2d)
conv_transpose2d = functools.partial(_multiply, F.conv_transpose2d)
baddbmm = functools.partial(_multiply, torch.baddbmm)
addmm = functools.partial(_multiply, torch.addmm)


class Linear(nn.Linear):
    """PyTorch's layer, its product by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """PyTorch's layer, its product as by :func:`conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h', w')."""
        return _multiply(self._conv_forward, x, self.weight, self.bias)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's layer, its product by :func:`conv_transpose2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h', w')."""
        return conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )
