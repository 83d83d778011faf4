"""In which dtypes the weights of a model are."""

import torch
from torch import nn


class WeightDtypes:
    """Tells the dtypes of all floating parameters and buffers, in no time.

    It is asked in every forward: a part of a model can be cast at any time, and a part
    in another dtype computes other numbers without a word.

    Args:
        model: whatever holds the weights. Modules that it gets later are not seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._holders = [
            tensors
            for module in model.modules()
            for tensors in (module._parameters, module._buffers)
            if tensors
        ]

    def now(self) -> set[torch.dtype]:
        """The dtypes at present; casting replaces buffers, and not their holders."""
        dtypes = {
            tensor.dtype
            for tensors in self._holders
            for tensor in tensors.values()
            if tensor is not None
        }
        return {dtype for dtype in dtypes if dtype.is_floating_point}


def first_of(model: nn.Module, dtypes: set[torch.dtype]) -> str:
    """Name of the first parameter or buffer that is in one of some dtypes."""
    named = (*model.named_parameters(), *model.named_buffers())
    return next(name for name, tensor in named if tensor.dtype in dtypes)
