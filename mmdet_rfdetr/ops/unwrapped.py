"""The model itself, whatever trains it."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model within a data-parallel wrapper, or the model if there is none."""
    return model.module if is_model_wrapper(model) else model
