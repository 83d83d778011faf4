"""Functions that compute in float32 whatever the precision around them."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .policy import AUTOCAST_DEVICES

P = ParamSpec('P')
R = TypeVar('R')


def float32_island() -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function or method compute in float32, inside any autocast.

    Two things are needed, and the decorator does both: autocast is off inside,
    and bfloat16 or float16 tensors among the arguments (also in lists, tuples
    and dicts) come in as float32. The casts are differentiable, so gradients
    arrive in the caller's dtype. float32, float64 and integer tensors come in
    as they are. ``torch.compile`` traces it without a graph break.

    Example::

        @float32_island()
        def cost(logits: Tensor, boxes: Tensor) -> Tensor: ...
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def island(*args: P.args, **kwargs: P.kwargs) -> R:
            with _no_autocast():
                return function(*_to_float32(args), **_to_float32(kwargs))

        return island

    return decorate


def _no_autocast() -> AbstractContextManager:
    """Turn off the autocast in use; free of charge where there is none."""
    # A plain function that returns a torch.autocast is the form that
    # torch.compile can trace; a context manager class of our own is not.
    for device_type in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device_type):
            return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _to_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        low = value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if low else value
    if type(value) in (list, tuple):
        return type(value)(_to_float32(item) for item in value)
    if type(value) is dict:
        return {key: _to_float32(item) for key, item in value.items()}
    return value
