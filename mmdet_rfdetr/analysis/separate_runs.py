"""Runs of one process that begin in the same second do not share logs."""

import functools
from collections.abc import Callable

from mmengine._strategy import BaseStrategy
from mmengine.logging import MessageHub
from mmengine.runner import FlexibleRunner, Runner
from mmengine.visualization import Visualizer


def keep_runs_apart() -> str:
    """Give each run of a process a name, a log and a folder of its own.

    mmengine names runs by the second in which they began, and hands out what has the
    name already: the state, the log and the drawings of another run. A visualizer that
    a config names is that of the first run for good.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    Runner.setup_env = _with_own_time(Runner.setup_env)
    BaseStrategy._setup_env = _with_own_time(BaseStrategy._setup_env)
    for runner in (Runner, FlexibleRunner):
        runner.build_visualizer = _with_own_name(runner.build_visualizer)
    return 'mmengine takes runs that begin in one second for one.'


def _with_own_time(setup: Callable) -> Callable:
    """Number the runs of a second; all processes of a run have begun the same ones."""

    @functools.wraps(setup)
    def setup_env(self, *args, **kwargs):
        setup(self, *args, **kwargs)
        second, number = self._timestamp, 1
        while any(name.endswith(self._timestamp) for name in MessageHub._instance_dict):
            number += 1
            self._timestamp = f'{second}_{number}'

    return setup_env


def _with_own_name(build: Callable) -> Callable:
    """Give a visualizer another name than that of a former run."""

    @functools.wraps(build)
    def build_visualizer(self, visualizer=None):
        name = visualizer.get('name') if isinstance(visualizer, dict) else None
        if name in Visualizer._instance_dict:
            visualizer = dict(visualizer, name=f'{name}_{self.experiment_name}')
        return build(self, visualizer)

    return build_visualizer
