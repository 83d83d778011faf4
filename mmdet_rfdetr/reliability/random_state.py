"""The state of everything that draws random numbers in a process."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


def capture_random_state() -> dict:
    """The states of Python's, NumPy's and torch's generators, as plain values."""
    version, words, gauss = random.getstate()
    _, keys, *position = np.random.get_state()
    state = {
        'python': [version, list(words), gauss],
        'numpy': [keys.tolist(), *position],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict) -> None:
    """The reverse of :func:`capture_random_state`.

    A CUDA state is left where there is no CUDA.
    """
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    keys, *position = state['numpy']
    np.random.set_state(('MT19937', keys, *position))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def seeded(entropy: Sequence[int]) -> Iterator[None]:
    """Draw from generators that start at a seed, and leave those outside as they were.

    It concerns the generators that data pipelines use: Python's, NumPy's, and torch's
    on the CPU.

    Args:
        entropy: non-negative numbers; each combination is a seed of its own.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    # torch.manual_seed would also seed the GPUs.
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
