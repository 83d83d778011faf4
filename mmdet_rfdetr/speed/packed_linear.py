"""Linear layers of constant weights, and what follows them as the same operator."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {'none': lambda x: x, 'relu': torch.relu, 'gelu': F.gelu}
"""What a packed layer can do with its product, by the names of oneDNN."""


class PackedLinear(nn.Module):
    """Linear layer of constant weights, its activation and a residual sum.

    On a CPU the layer with either of them is one operator of oneDNN, one of those that
    ``torch.compile`` uses for constant weights. It reads the weights in an order of its
    own, in which they are kept for one number of rows and packed anew when that
    changes. Elsewhere, and for gradients, plain operators do the same.

    Args:
        weight: (out, in).
        bias: (out,).
        activation: a key of ``ACTIVATIONS``.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = 'none') -> None:
        super().__init__()
        self.register_buffer('weight', weight.detach().clone())
        self.register_buffer('bias', bias.detach().clone())
        self.activation = activation
        self._packed: tuple[tuple, tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(..., in) to (..., out), activated and added to a residual."""
        if not self._can_pack(x):
            activate = ACTIVATIONS[self.activation]
            y = activate(F.linear(x, self.weight, self.bias))
            return y if residual is None else residual + y
        x = x.to(self.weight.dtype)
        weight, bias = self._packed_for(x.numel() // x.shape[-1])
        fused = residual is not None and residual.dtype == self.weight.dtype
        if fused and self.activation == 'none':
            return torch.ops.mkldnn._linear_pointwise.binary(
                x, residual, weight, bias, 'add'
            )
        y = torch.ops.mkldnn._linear_pointwise(
            x, weight, bias, self.activation, [], 'none'
        )
        return y if residual is None else residual + y

    def _can_pack(self, x: Tensor) -> bool:
        return (
            x.is_cpu
            and not x.requires_grad
            and not torch.compiler.is_compiling()
            and packable(self.weight.dtype)
        )

    def _packed_for(self, rows: int) -> tuple[Tensor, Tensor]:
        key = rows, self.weight.dtype
        if self._packed is None or self._packed[0] != key:
            weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
            self._packed = key, (weight, self.bias)
        return self._packed[1]

    def __getstate__(self) -> dict:
        return dict(super().__getstate__(), _packed=None)


@functools.cache
def packable(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and computes in a dtype on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype == torch.float32


class PackedMLP(nn.Sequential):
    """Linear layers of constant weights with ReLU between.

    Args:
        layers: weight (out, in) and bias (out,) of each.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        *hidden, last = layers
        super().__init__(
            *(PackedLinear(*layer, 'relu') for layer in hidden), PackedLinear(*last)
        )
