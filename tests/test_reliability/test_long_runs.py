"""A run of many epochs holds as many files, threads and objects as a short one."""

import gc
import os

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.factory import write_coco

from .project import config

EPOCHS = 6


class Held(Hook):
    """Counts what the process holds after each validation."""

    priority = 'LOWEST'

    def __init__(self):
        self.counts = []

    def after_val_epoch(self, runner, metrics=None):
        gc.collect()
        children = f'/proc/self/task/{os.getpid()}/children'
        with open(children) as file:
            workers = file.read().split()
        self.counts.append(
            dict(
                files=len(os.listdir('/proc/self/fd')),
                threads=len(os.listdir('/proc/self/task')),
                workers=workers,
                objects=len(gc.get_objects()),
            )
        )


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists('/proc/self/fd'), reason='counts in /proc')
def test_epochs_leave_nothing_behind(tmp_path):
    data = write_coco(tmp_path / 'coco', range(9))
    runner = Runner.from_cfg(
        config(data, tmp_path / 'run', train_cfg=dict(max_epochs=EPOCHS))
    )
    held = Held()
    runner.register_hook(held)
    runner.train()
    # The first validation starts its workers, and the second is the first with a best.
    second, *_, last = held.counts[1:]
    objects, later = second.pop('objects'), last.pop('objects')
    assert last == second
    # An epoch that leaves anything of its batches or metrics leaves hundreds.
    assert later - objects < 20 * len(held.counts), (objects, later)
