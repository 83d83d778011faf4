"""One side's process: ``python -m mmdet_rfdetr.benchmark.worker``, started by the tool.

Its only argument is a JSON object, the options of a side; see :class:`.sides.Side`.
Prints one JSON object when it is ready. For each line on standard input, a number N, it
answers with the phases of N samples in milliseconds, and at the end of the input with
the peak memory. The official package's side, ``official.py``, speaks the same.
"""

import json
import os
import platform
import resource
import sys
from collections.abc import Callable
from types import SimpleNamespace

import torch


def serve(build: Callable, clock_type: type) -> None:
    """Build a side, warm it up, and answer until the input ends.

    Args:
        build: called with the options and the clock.
        clock_type: ``Clock``, which each side finds in its own way.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # libraries that print do not disturb the answers

    def answer(**content) -> None:
        answers.write(json.dumps(content) + '\n')
        answers.flush()

    args = SimpleNamespace(**json.loads(sys.argv[1]))
    try:
        if args.threads:
            torch.set_num_threads(args.threads)
        clock = clock_type(args.clock, torch.device(args.device))
        work, facts = build(args, clock)
        for _ in range(args.warmup):
            work()
        clock.take()
    except Exception as error:  # the tool tells the user
        answer(error=f'{type(error).__name__}: {error}')
        raise
    device = _device_name(args.device)
    threads = torch.get_num_threads()
    answer(facts=dict(facts, device=device, threads=threads, torch=torch.__version__))
    for line in sys.stdin:
        samples = []
        for _ in range(int(line)):
            work()
            samples.append(clock.take())
        answer(samples=samples)
    on_gpu = args.device.startswith('cuda')
    answer(memory=torch.cuda.max_memory_allocated() if on_gpu else peak_memory())


def peak_memory() -> int:
    """The most bytes that this process ever held."""
    try:
        with open('/proc/self/status') as file:
            peak = next(line for line in file if line.startswith('VmHWM:'))
        return int(peak.split()[1]) * 1024
    except FileNotFoundError:  # no Linux; there getrusage counts the parent's, too
        unit = 1 if sys.platform == 'darwin' else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: str) -> str:
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    try:
        with open('/proc/cpuinfo') as file:
            names = [line for line in file if line.startswith('model name')]
    except FileNotFoundError:  # not Linux
        names = []
    return names[0].partition(':')[2].strip() if names else platform.machine()


if __name__ == '__main__':
    from mmdet_rfdetr.benchmark.clock import Clock
    from mmdet_rfdetr.benchmark.plugin import build as build_side

    serve(build_side, Clock)
