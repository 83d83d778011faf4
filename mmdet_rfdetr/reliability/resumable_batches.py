"""Training batches that come out the same from wherever an epoch is entered.

Augmentation draws from generators in the worker processes of a data loader. Where they
stand depends on all that a worker did before, which no checkpoint can hold. Here they
are seeded for each batch instead, from the run's seed and the batch's number.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_rank
from torch.utils.data import BatchSampler, Sampler

from .random_state import seeded


@dataclass(frozen=True)
class SeededIndices:
    """The indices of a batch, and the numbers that its randomness follows from.

    Whoever goes through the indices to load their images draws meanwhile from
    generators of their own, which is all that a data set does with a batch.
    """

    indices: list[int]
    entropy: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        with seeded(self.entropy):
            yield from self.indices


@DATA_SAMPLERS.register_module()
class RFDETRResumableBatchSampler:
    """A batch sampler that can begin anywhere in an epoch.

    Args:
        sampler: of single images; mmengine tells it the epoch.
        batch_size: images in a batch.
        seed: the run's seed.
        drop_last: whether to leave out a last, smaller batch.
        batch_sampler: config of another batch sampler to take the batches from.

    Attributes:
        epoch: the epoch that the next iteration is of.
        start: the batch that the next iteration begins with; those before are not
            loaded.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        batch_sampler: dict | None = None,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.start = 0
        if batch_sampler is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
            )

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the next iteration begins."""
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededIndices]:
        """Yield the batches from ``start`` on."""
        place = self.seed, self.epoch, get_rank()
        for number, indices in islice(enumerate(self.batches), self.start, None):
            yield SeededIndices(list(indices), (*place, number))


def with_resumable_batches(loader: dict, seed: int) -> dict:
    """The config of a data loader, with a batch sampler that can begin anywhere.

    Args:
        loader: config of a data loader; its batch sampler, if any, makes the batches.
        seed: the run's seed.
    """
    loader = copy.copy(loader)
    settings = dict(type='RFDETRResumableBatchSampler', seed=seed)
    if loader.get('batch_sampler'):
        settings['batch_sampler'] = loader['batch_sampler']
    else:
        settings['drop_last'] = loader.pop('drop_last', False)
    loader['batch_sampler'] = settings
    return loader
