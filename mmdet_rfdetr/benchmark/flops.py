"""Floating point operations of a forward pass, attention included."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(model: nn.Module, inputs: Tensor, data_samples: list) -> int:
    """Count the operations of one prediction, 2 for a multiplication and an addition.

    Counted are matrix products and convolutions. Fused attention would count as
    nothing, so for this pass it is taken apart into its two products.

    Args:
        model: in eval mode.
        inputs: (B, 3, H, W), normalised.
        data_samples: one for each image.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:  # the counter looks for gradients where there are none
        parameter.requires_grad_(False)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(inputs, data_samples, mode='predict')
    for parameter in trained:
        parameter.requires_grad_(True)
    return counter.get_total_flops()
