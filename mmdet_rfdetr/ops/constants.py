"""Tensors that are the same in every step, made once for each size and device."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec('P')
R = TypeVar('R')

MOST_SIZES = 64
"""Results of a function that are kept, those that were used last."""

COLLECTIONS: list[list] = []
"""Each of these lists gets every constant that is used.

A CUDA graph reads constants where they lie, and has to keep them from being freed.
"""


def constant(function: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function made of its arguments, which are all it depends on.

    What is made in inference mode can be used in training. A function that is being
    compiled, exported or traced makes its constants itself, and nothing of that is
    kept. ``cache_clear()`` forgets all.

    Args:
        function: makes tensors from hashable arguments.
    """
    make = functools.lru_cache(MOST_SIZES)(torch.inference_mode(False)(function))

    @functools.wraps(function)
    def keep(*args: P.args) -> R:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return function(*args)
        value = make(*args)
        for collection in COLLECTIONS:
            collection.append(value)
        return value

    keep.cache_clear = make.cache_clear
    return keep
