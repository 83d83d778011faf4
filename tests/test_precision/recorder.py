"""What autocast does deep inside the model, whoever calls it."""

import contextlib

import torch
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_rfdetr.models.backbone import MLP
from mmdet_rfdetr.precision import autocast_on
from mmdet_rfdetr.precision.policy import describe


@contextlib.contextmanager
def recorded():
    """Collect ``(state, dtype of a product)`` of every ViT block that runs."""
    seen = []

    def note(module, inputs, output):
        if isinstance(module, MLP):
            state = autocast_on(inputs[0].device.type)
            seen.append((state, output.dtype))

    handle = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def expected(dtype: torch.dtype, device_type: str = 'cpu'):
    """The record of a model that runs in ``dtype``."""
    return describe(device_type, dtype), dtype


class Operators(TorchDispatchMode):
    """Collects the names of operators and the dtypes of their tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        dtypes = {x.dtype for x in args if isinstance(x, torch.Tensor)}
        self.calls.append((operator.overloadpacket.__name__, dtypes))
        return operator(*args, **(kwargs or {}))

    def dtypes(self, part):
        return [dtypes for name, dtypes in self.calls if part in name]
