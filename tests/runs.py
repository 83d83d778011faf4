"""Runs that a process has made, which mmengine remembers."""

from mmdet.visualization import DetLocalVisualizer
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.visualization import Visualizer


def forget_runs():
    """Forget all runs of this process; what is built next belongs to MMDetection."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for named in (DefaultScope, DetLocalVisualizer, Visualizer, MessageHub, MMLogger):
        named._instance_dict.clear()
    init_default_scope('mmdet')
