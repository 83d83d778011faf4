"""Runs that a process has made, which mmengine remembers."""

import itertools

from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.visualization import Visualizer

_numbers = itertools.count()


def run_name():
    """Another name each time: mmengine takes runs of one second and name for one."""
    return f'run_{next(_numbers)}'


def forget_runs():
    """Forget all runs of this process; what is built next belongs to MMDetection."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for kind in (DefaultScope, Visualizer, MessageHub, MMLogger):
        for named in (kind, *_heirs(kind)):
            named._instance_dict.clear()
    init_default_scope('mmdet')


def _heirs(kind):
    """All classes below one, each of which remembers its own."""
    for heir in kind.__subclasses__():
        yield heir
        yield from _heirs(heir)
