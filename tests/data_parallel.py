"""What a data-parallel step on a CPU loses to anything but arithmetic.

``python -m tests.data_parallel`` trains Nano in five processes of one thread each, as
in a run (all shipped hooks, optimizer, moving average), four images a step: ``one``
takes them all; the two of ``apart`` take two each and know nothing of one another,
which is the arithmetic of two processes; those of ``together`` exchange gradients by
gloo. The sides take turns, and CPU time counts, of all threads of a process. It takes
13 GB of memory, ``--sides apart together`` 10, ``--config rfdetr_demo.py`` little.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_rfdetr
from tests import factory
from tests.interpreter import free_port

IMAGES = 4
OBJECTS = 7
SIDES = dict(one=1, apart=2, together=2)
"""How many processes share the images."""


class Turns(Hook):
    """Makes so many steps as it is told, and sends their CPU and wall time, seconds."""

    priority = 'LOWEST'

    def __init__(self, pipe):
        self._pipe, self._left, self._steps = pipe, 0, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self._left:
            self._pipe.send(self._steps)
            self._left, self._steps = self._pipe.recv(), []
        self._start = clocks()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._steps.append(
            (torch.tensor(clocks()) - torch.tensor(self._start)).tolist()
        )
        self._left -= 1


def clocks():
    """CPU seconds of this process, of all its threads, and seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()


def config(name, folder, batch_size):
    """The shipped config in float32, with one size of images, on drawn data."""
    cfg = Config.fromfile(mmdet_rfdetr.config(name))
    size = cfg.image_size
    classes = tuple(f'class {n}' for n in range(cfg.model.bbox_head.num_classes))
    if not (folder / 'annotations.json').exists():
        factory.write_coco(folder, (OBJECTS,) * 32, (size, size), classes=classes)
    resize = dict(type='RFDETRResize', image_size=size)
    pipeline = [factory.LOAD, factory.ANNOTATIONS, resize, factory.PACK]
    dataset = factory.dataset(folder, metainfo=dict(classes=classes), pipeline=pipeline)
    # An epoch that does not end: no checkpoint is written in between.
    dataset = dict(type='RepeatDataset', times=10**4, dataset=dataset)
    cfg.train_dataloader = factory.loader(dataset, shuffle=True, batch_size=batch_size)
    cfg.model.precision = None
    cfg.model.data_preprocessor.batch_augments = None
    for part in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{part}'] = cfg[f'test_{part}'] = None
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


def train(cfg, folder, rank, processes, port, pipe):
    """One process of a side."""
    said = open(folder / 'said.txt', 'w', buffering=1)  # noqa: SIM115
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    torch.set_num_threads(1)
    names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=processes, MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in names.items()})
    os.environ['MASTER_ADDR'] = '127.0.0.1'
    cfg.launcher = 'pytorch' if processes > 1 else 'none'
    cfg.work_dir = str(folder)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Turns(pipe))
    runner.train()


def measure(name, sides, turns, steps):
    """Let the sides take turns.

    Returns:
        Of each side, of each turn: the median over its steps of the CPU seconds of all
        processes, and of the seconds of the slowest.
    """
    fork = multiprocessing.get_context('fork')
    pipes, processes = {side: [] for side in sides}, []
    result = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for side in sides:
            number, port = SIDES[side], free_port()
            for rank in range(number):
                pipe, other = fork.Pipe()
                pipes[side].append(pipe)
                own = folder / f'{side}{rank}'
                own.mkdir()
                cfg = config(name, folder / 'data', IMAGES // number)
                place = (rank, number) if side == 'together' else (0, 1)
                arguments = cfg, own, *place, port, other
                processes.append(fork.Process(target=train, args=arguments))
                processes[-1].start()
                other.close()
        try:
            for pipe in itertools.chain(*pipes.values()):
                pipe.recv()
            for turn in range(turns + 1):
                for side in sides:
                    for pipe in pipes[side]:
                        pipe.send(steps)
                    times = torch.tensor([pipe.recv() for pipe in pipes[side]])
                    cpu, wall = times[..., 0].sum(0), times[..., 1].amax(0)
                    if turn:  # the first warms up
                        result[side].append([cpu.median().item(), wall.median().item()])
                print(f'turn {turn} of {turns}', file=sys.stderr, flush=True)
        except EOFError:
            texts = [path.read_text()[-2000:] for path in folder.glob('*/said.txt')]
            sys.exit('\n\n'.join(texts))
        finally:
            for process in processes:
                process.kill()
                process.join()
    return result


def main():
    """Measure, and print ratios: the median of the turns, and their range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='rfdetr_nano_coco.py')
    parser.add_argument('--sides', nargs='+', choices=SIDES, default=[*SIDES])
    parser.add_argument('--turns', type=int, default=5)
    parser.add_argument('--steps', type=int, default=5, help='of a turn')
    args = parser.parse_args()
    result = measure(args.config, args.sides, args.turns, args.steps)
    for side, turns in result.items():
        cpu, wall = map(median, zip(*turns, strict=True))
        print(f'{side}: {cpu:.3f} s of CPU time a step, {wall:.3f} s')
    for kind, what in enumerate(('CPU time', 'time')):
        for base, side in itertools.combinations(result, 2):
            pairs = zip(result[side], result[base], strict=True)
            ratios = [turn[kind] / other[kind] for turn, other in pairs]
            low, middle, high = min(ratios), median(ratios), max(ratios)
            print(f'{what}, {side} / {base}: {middle:.3f} ({low:.3f} to {high:.3f})')


if __name__ == '__main__':
    main()
