"""Processes that are measured in turn."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

OFFICIAL_PYTHON = 'RFDETR_OFFICIAL_PYTHON'
_SCRIPT = Path(__file__).with_name('official.py')


class BenchmarkError(RuntimeError):
    """A side could not be measured; the message says why."""


@dataclass
class Side:
    """One thing that is measured.

    Args:
        name: for the table.
        options: ``target``, a config file or a class of the official package, and the
            tool's arguments of these names: ``task``, ``data``, ``checkpoint``,
            ``cfg_options``, ``device``, ``dtype``, ``clock``, ``batch_size``,
            ``boxes``, ``detections``, ``threads``, ``warmup``, ``deploy``,
            ``cuda_graphs``, ``official_compile``.
        python: interpreter that runs it, if it is the official package.
    """

    name: str
    options: dict
    python: str | None = None
    rounds: list[list[dict]] = field(default_factory=list, init=False)
    facts: dict = field(default_factory=dict, init=False)
    memory: int = field(default=0, init=False)

    def start(self) -> None:
        """Start the process and wait until it has warmed up.

        Raises:
            BenchmarkError: if it fails.
        """
        command = [sys.executable, '-m', 'mmdet_rfdetr.benchmark.worker']
        environment = dict(os.environ)
        if self.python is not None:
            command = [self.python, str(_SCRIPT)]
            environment.pop('PYTHONPATH', None)
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115 closed by close()
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(self.options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise BenchmarkError(f'{self.name}: cannot start: {error}') from error
        self.facts = self._read()['facts']

    def run(self, count: int) -> None:
        """Take samples, as one round."""
        self._process.stdin.write(f'{count}\n')
        self._process.stdin.flush()
        self.rounds.append(self._read()['samples'])

    def stop(self) -> None:
        """End the work; its peak memory is known then."""
        self._process.stdin.close()
        self.memory = self._read()['memory']

    def close(self) -> None:
        """Leave no process and no open file, whatever happened."""
        if hasattr(self, '_process'):
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
        if hasattr(self, '_errors'):
            self._errors.close()

    def totals(self) -> list[list[float]]:
        """Milliseconds of every sample, all phases together, round by round."""
        return [[sum(phases.values()) for phases in samples] for samples in self.rounds]

    def result(self) -> dict:
        """What was measured, for the table and the JSON file."""
        samples = [phases for samples in self.rounds for phases in samples]
        phases = {
            name: summarise([sample[name] for sample in samples]) for name in samples[0]
        }
        totals = [total for totals in self.totals() for total in totals]
        return dict(
            name=self.name,
            facts=self.facts,
            memory=self.memory,
            phases=dict(phases, total=summarise(totals)),
        )

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {}
        if not line or 'error' in answer:
            self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ['no message']
            raise BenchmarkError(f'{self.name}: {answer.get("error") or last[0]}')
        return answer


def measure(
    sides: Sequence[Side],
    rounds: int,
    samples: int,
    pause: float = 0.0,
    progress: Callable[[str], None] = print,
) -> list[dict]:
    """Measure sides in turn.

    Args:
        sides: the first is what the others are compared with.
        rounds: how often each takes its turn.
        samples: of a turn.
        pause: seconds between turns, for a machine that gets hot.
        progress: gets a line of text now and then.

    Returns:
        Results of the sides; all but the first have ``speedup``.

    Raises:
        BenchmarkError: if a side fails.
    """
    try:
        for side in sides:
            progress(f'starting {side.name}')
            side.start()
        start = time.monotonic()
        for number in range(1, rounds + 1):
            for side in sides:
                side.run(samples)
                time.sleep(pause)
            left = (time.monotonic() - start) / number * (rounds - number)
            rest = f', {left:.0f} s left' if number < rounds else ''
            progress(f'round {number} of {rounds}{rest}')
        for side in sides:
            side.stop()
    finally:
        for side in sides:
            side.close()
    results = [side.result() for side in sides]
    for side, result in zip(sides[1:], results[1:], strict=True):
        result['speedup'] = speedup(sides[0].totals(), side.totals())
    return results


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median (``p50``) and 95 % quantile (``p95``) of one phase, in milliseconds."""
    p50, p95 = np.quantile(values, (0.5, 0.95)).tolist()
    return dict(p50=p50, p95=p95, samples=len(values))


def speedup(
    base: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> dict[str, float]:
    """How many times faster ``other`` is, round by round.

    Args:
        base: milliseconds of each round's samples.
        other: the same of the other side, in the same rounds.

    Returns:
        Median of the rounds' ratios and their 25 to 75 % range.
    """
    ratios = [
        np.median(slow) / np.median(fast)
        for slow, fast in zip(base, other, strict=True)
    ]
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    return dict(median=median, p25=low, p75=high, rounds=len(ratios))
