"""How passes of models are timed, and what follows for models of the same parts."""

import os
import platform
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


class Protocol(NamedTuple):
    """How passes are timed.

    Attributes:
        device: ``'cpu'``, or another that is waited for.
        clock: ``'wall'``, or ``'cpu'``: the time of this process, which busy neighbours
            do not lengthen.
        threads: of each process on a CPU.
        pause: seconds between two passes, so that the device does not heat up.
        rounds: passes that count, of each; the order is drawn anew in every round.
        warm_up: passes before them, of each.
    """

    device: str = 'cpu'
    clock: str = 'wall'
    threads: int = 1
    pause: float = 0.2
    rounds: int = 10
    warm_up: int = 3

    def problem(self) -> str | None:
        """Why this clock does not tell the time of a pass, in a sentence."""
        if self.clock == 'wall' or (self.device == 'cpu' and self.threads == 1):
            return None
        return (
            f'--clock cpu adds up the threads of this process, and here are --device '
            f'{self.device} --threads {self.threads}: take --device cpu --threads 1, '
            'or --clock wall'
        )

    def describe(self) -> str:
        """The sentence of the report."""
        return (
            f'Batch 1, deployed models on {self.device}, {self.threads} threads of the '
            f'host, {self.clock} clock; {self.warm_up} passes to warm up, then '
            f'{self.rounds} rounds in random order, {self.pause:g} s between passes; '
            'medians, and half of the range that the middle half of the passes covers.'
        )

    def time(
        self,
        jobs: Mapping[Hashable, Callable[[], object]],
        wait: Callable[[], object] = lambda: None,
    ) -> dict[Hashable, dict]:
        """Time the passes of jobs in turns.

        Args:
            jobs: by any key, what makes a pass.
            wait: returns when the device has done its work.

        Returns:
            ``median`` and ``spread`` of each in milliseconds; ``measured`` is true.
        """
        now, order = CLOCKS[self.clock], random.Random(0)
        found: dict[Hashable, list[float]] = {key: [] for key in jobs}
        for number in range(self.warm_up + self.rounds):
            for key in order.sample([*jobs], len(jobs)):
                time.sleep(self.pause if number >= self.warm_up else 0)
                start = now()
                jobs[key]()
                wait()
                found[key].append((now() - start) * 1e3)
        return {key: _summary(times[self.warm_up :]) for key, times in found.items()}


def _summary(times: Sequence[float]) -> dict:
    low, median, high = map(float, np.quantile(times, (0.25, 0.5, 0.75)))
    return dict(median=median, spread=(high - low) / 2, measured=True)


def predict(
    parts: dict, trunk: str, tokens: int, num_layers: int, num_queries: int
) -> dict:
    """T = trunk + layers * layer(queries, tokens) + head(queries).

    Of each trunk a whole model was measured; its layers and queries are taken away, and
    those of the model are added.

    Args:
        parts: ``whole``, by trunk, a measured model with its ``num_layers`` and
            ``num_queries``; ``queries``, by their number, ``layer``, ms of a layer,
            ``head``, ms of what comes with any layer, and ``results``, ms of what every
            model does with its queries; each as pairs of tokens and ms.
        trunk: of the model.
        tokens: that a layer reads.
        num_layers: of the model.
        num_queries: of the model.

    Returns:
        As :meth:`Protocol.time`, not measured.
    """
    whole, of_count = parts['whole'][trunk], parts['queries']
    counts = sorted(map(int, of_count))
    entries = [of_count[str(count)] for count in counts]

    def beside_trunk(layers: int, queries: int) -> float:
        each = []
        for entry in entries:
            layer, head, rest = (
                np.interp(tokens, *zip(*entry[name], strict=True))
                for name in ('layer', 'head', 'results')
            )
            each.append(layers * layer + (head if layers else 0.0) + rest)
        return float(np.interp(queries, counts, each))

    median = whole['median'] - beside_trunk(whole['num_layers'], whole['num_queries'])
    median += beside_trunk(num_layers, num_queries)
    return dict(median=median, spread=whole['spread'], measured=False)


def machine(device: str = '') -> str:
    """What latencies are measured on.

    Args:
        device: name of an accelerator.
    """
    info, name = Path('/proc/cpuinfo'), platform.machine()
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith('model name'):
            name = line.partition(':')[2].strip()
    return ', '.join(filter(None, (device, name, f'{os.cpu_count()} cores')))
