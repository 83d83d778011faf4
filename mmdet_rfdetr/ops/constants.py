"""Tensors that are the same in every step, made once for each size and device."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec('P')
R = TypeVar('R')


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function made of its arguments, which are all it depends on.

    It is kept for good: a CUDA graph reads it where it lies. What is made in inference
    mode can be used in training. A function that is being compiled makes its constants
    itself. ``cache_clear()`` forgets all.

    Args:
        function: makes small tensors from hashable arguments.
    """
    make = functools.cache(torch.inference_mode(False)(function))

    @functools.wraps(function)
    def keep(*args: P.args) -> R:
        return function(*args) if torch.compiler.is_dynamo_compiling() else make(*args)

    keep.cache_clear = make.cache_clear
    return keep
