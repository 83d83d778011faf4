"""Which sub-nets there are, and which one a step trains.

Imports nothing but the errors, so that a tool can list a space without PyTorch.
"""

import random
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import SettingError, check_counts

_NAME = re.compile(r's(\d+)-p(\d+)-w(\d+)-d(\d+)-q(\d+)')


class Subnet(NamedTuple):
    """The five numbers that make an ordinary model of a super-net.

    Attributes:
        image_size: side of the square input in pixels, a multiple of patch size times
            windows.
        patch_size: side of a patch in pixels.
        num_windows: windows along each side of the image.
        num_layers: decoder layers that run; 0 takes the outputs of the encoder.
        num_queries: queries of a group.
    """

    image_size: int
    patch_size: int
    num_windows: int
    num_layers: int
    num_queries: int

    @property
    def name(self) -> str:
        """As ``s480-p12-w2-d3-q200``."""
        return 's{}-p{}-w{}-d{}-q{}'.format(*self)

    @property
    def tokens(self) -> int:
        """Patches of the image."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def parse(cls, name: str) -> 'Subnet':
        """The reverse of :attr:`name`.

        Raises:
            SettingError: if it is no such name, or the numbers do not go together.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise SettingError(
                f'{name!r} names no sub-net: write size, patch size, windows, decoder '
                'layers and queries as s480-p12-w2-d3-q200'
            )
        return cls(*map(int, match.groups())).checked()

    def checked(self) -> 'Subnet':
        """The sub-net itself.

        Raises:
            SettingError: if size, patches and windows do not go together, or it has
                more queries than tokens.
        """
        sizes = self._asdict()
        sizes.pop('num_layers')
        check_counts(**sizes)
        side = self.patch_size * self.num_windows
        if self.image_size % side:
            below = max(1, self.image_size // side) * side
            raise SettingError(
                f'{self.name}: {self.image_size} pixels are no multiple of patch size '
                f'times windows, {side}: take s{below} or s{below + side}'
            )
        if self.num_queries > self.tokens:
            raise SettingError(
                f'{self.name} has {self.num_queries} queries for {self.tokens} tokens: '
                f'take q{self.tokens} or fewer'
            )
        return self


class SearchSpace:
    """Sizes, patches and windows that are drawn in training; layers, queries cut later.

    A nominal size is rounded to the nearest one that patches and windows divide, of two
    as near ones the even multiple; what becomes equal is there once.

    Args:
        image_sizes: nominal sides of the square input in pixels.
        patch_sizes: sides of a patch in pixels.
        num_windows: windows along each side of the image.
        num_layers: decoder layers, 0 for the encoder alone.
        num_queries: queries of a group; at most as many as a sub-net has tokens.
        max_tokens: most patches of an image; what has more is left out.

    Attributes:
        triples: (size, patch size, windows), ascending.

    Raises:
        SettingError: if a list has none or odd numbers, or nothing is left.
    """

    def __init__(
        self,
        *,
        image_sizes: Iterable[int],
        patch_sizes: Iterable[int],
        num_windows: Iterable[int],
        num_layers: Iterable[int],
        num_queries: Iterable[int],
        max_tokens: int = 3600,
    ) -> None:
        self.image_sizes = _numbers('image_sizes', image_sizes)
        self.patch_sizes = _numbers('patch_sizes', patch_sizes)
        self.num_windows = _numbers('num_windows', num_windows)
        self.num_layers = _numbers('num_layers', num_layers, least=0)
        self.num_queries = _numbers('num_queries', num_queries)
        check_counts(search_space__max_tokens=max_tokens)
        self.max_tokens = max_tokens
        triples = {
            (_nearest(size, patch * windows), patch, windows)
            for size in self.image_sizes
            for patch in self.patch_sizes
            for windows in self.num_windows
        }
        self.triples = tuple(
            sorted(t for t in triples if (t[0] // t[1]) ** 2 <= max_tokens)
        )
        if not self.triples:
            raise SettingError(
                f'search_space.max_tokens={max_tokens} leaves nothing of '
                f'{len(triples)} sizes, patches and windows: raise it, or add smaller '
                'image_sizes or larger patch_sizes'
            )

    def as_dict(self) -> dict[str, list[int] | int]:
        """The arguments, in plain lists."""
        keys = (
            'image_sizes',
            'patch_sizes',
            'num_windows',
            'num_layers',
            'num_queries',
        )
        lists = {key: list(getattr(self, key)) for key in keys}
        return dict(lists, max_tokens=self.max_tokens)

    def with_all(self, triple: tuple[int, int, int]) -> Subnet:
        """The sub-net of a size, patch and windows with most layers and queries."""
        return Subnet(*triple, max(self.num_layers), self.queries(triple)[-1])

    def queries(self, triple: tuple[int, int, int]) -> list[int]:
        """Numbers of queries for a size, patch and windows: at most its tokens."""
        tokens = (triple[0] // triple[1]) ** 2
        return sorted({min(count, tokens) for count in self.num_queries})

    def subnets(self) -> Iterator[Subnet]:
        """All sub-nets: triple by triple, by queries, then layers."""
        for triple in self.triples:
            for queries in self.queries(triple):
                for layers in self.num_layers:
                    yield Subnet(*triple, layers, queries)

    def draw(self, seed: int, step: int, number: int = 0) -> Subnet:
        """The sub-net that an optimizer step trains, with all layers and queries.

        It depends on the arguments alone, so processes agree, and a resumed run goes
        on with the same ones.

        Args:
            seed: of the run.
            step: optimizer steps made before.
            number: which of several draws of the step.
        """
        key = f'{seed}/{step}/{number}' if number else f'{seed}/{step}'
        return self.with_all(random.Random(key).choice(self.triples))


def _numbers(key: str, numbers: Iterable[int], least: int = 1) -> tuple[int, ...]:
    """Ascending, each once."""
    listed = list(numbers) if isinstance(numbers, Iterable) else []
    whole = all(type(x) is int and x >= least for x in listed)
    if not listed or not whole:
        raise SettingError(
            f'search_space.{key}={numbers!r} must be a list of whole numbers from '
            f'{least} on'
        )
    return tuple(sorted(set(listed)))


def _nearest(size: int, side: int) -> int:
    """The multiple of ``side`` nearest to ``size``, at least one."""
    return max(1, round(size / side)) * side
