"""Training batches that come out the same from wherever an epoch is entered.

Augmentation draws from generators in the worker processes of a data loader. Where they
stand depends on all that a worker did before, which no checkpoint can hold. Here they
are seeded for each batch instead, from the run's seed and the batch's place.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice

import torch
from mmengine.dist import get_rank
from torch.utils.data import BatchSampler, DataLoader, Dataset

from .random_state import seeded


class SeededBatch(list):
    """The indices of a batch, and the numbers that its randomness follows from."""

    entropy: tuple[int, ...]


class ResumableBatches:
    """A batch sampler that can begin anywhere in an epoch.

    Args:
        batches: the batch sampler to take the batches from.
        seed: the run's seed.

    Attributes:
        epoch: the epoch that the next iteration is of.
        start: the batch that the next iteration begins with; those before are not
            loaded.
    """

    def __init__(self, batches: BatchSampler, seed: int) -> None:
        self.batches = batches
        self.sampler = batches.sampler  # which mmengine tells the epoch
        self.batch_size = batches.batch_size
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the next iteration begins."""
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        """Yield the batches from ``start`` on."""
        place = self.seed, self.epoch, get_rank()
        for number, indices in islice(enumerate(self.batches), self.start, None):
            batch = SeededBatch(indices)
            batch.entropy = (*place, number)
            yield batch


def fetch(dataset: Dataset, indices: list[int]) -> list:
    """Get the images of a batch, with randomness that follows from its place."""
    is_seeded = isinstance(indices, SeededBatch)
    with seeded(indices.entropy) if is_seeded else nullcontext():
        return [dataset[index] for index in indices]


def make_resumable(loader: DataLoader, seed: int) -> ResumableBatches:
    """Let a data loader begin anywhere, and give every batch its own randomness.

    Args:
        loader: a loader that has not been iterated over.
        seed: the run's seed.

    Returns:
        Its batch sampler, to set the place with.
    """
    batches = ResumableBatches(loader.batch_sampler, seed)
    # The loader guards these against changes that would come too late; no worker has
    # been started yet.
    vars(loader)['batch_sampler'] = batches
    # What a data loader calls for the images of a batch.
    loader.dataset.__getitems__ = partial(fetch, loader.dataset)
    keep_random_state(loader)
    return batches


def keep_random_state(loader: DataLoader) -> None:
    """Keep a loader from drawing a seed for its workers from torch's own generator.

    It does so once in a run or once in an epoch, depending on
    ``persistent_workers``, which a resumed run could not follow.
    """
    if loader.generator is None:
        loader.generator = torch.Generator()
