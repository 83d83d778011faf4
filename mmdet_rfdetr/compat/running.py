"""Data loaders and several processes."""

import copy
import functools
import inspect
import os
import socket
from collections.abc import Callable

from torch import nn


def launch_on_cpu() -> str | None:
    """Let mmengine launch several processes where there is no accelerator.

    It calls ``torch.cuda.set_device``, which fails without a GPU, so a two-process run
    could not be tried on an ordinary machine, nor tested there.

    Returns:
        The reason, or None with an accelerator.
    """
    from mmengine.device import get_device

    if get_device() != 'cpu':
        return None

    import mmengine.dist.utils
    import torch

    def init_gloo(backend, init_backend='torch', **kwargs):
        _stay_on_this_machine()
        torch.distributed.init_process_group(backend='gloo', **kwargs)

    mmengine.dist.utils._init_dist_pytorch = init_gloo
    return "No accelerator: mmengine's launcher takes one for granted."


def wrap_on_cpu() -> str | None:
    """Let mmengine wrap RF-DETR for data-parallel training without an accelerator.

    Returns:
        The reason, or None with an accelerator.
    """
    from mmengine.device import get_device

    if get_device() != 'cpu':
        return None
    _change_data_parallel(lambda arguments: arguments.pop('device_ids', None))
    return "No accelerator: mmengine's data-parallel training names one."


def is_rfdetr(model: nn.Module) -> bool:
    """Whether a part of a model comes from this package, or inherits from one."""
    return any(
        base.__module__.startswith('mmdet_rfdetr.')
        for part in model.modules()
        for base in type(part).__mro__
    )


WORKER_OPTIONS = (
    'persistent_workers',
    'prefetch_factor',
    'timeout',
    'multiprocessing_context',
)
"""What torch refuses to be told about the workers of a loader that has none."""


def load_without_workers() -> str | None:
    """Let a config's data loader be built with ``num_workers=0`` and nothing else.

    Torch refuses options of workers then, and configs of detectors have such options.

    Returns:
        The reason; the gap is there with every version of torch.
    """
    from mmengine.runner import FlexibleRunner, Runner

    for runner in (Runner, FlexibleRunner):
        build = _without_worker_options(runner.build_dataloader)
        runner.build_dataloader = staticmethod(build)
    return 'torch refuses persistent_workers with num_workers=0.'


def _without_worker_options(build: Callable) -> Callable:
    """Leave them out of the configs of data loaders without workers."""
    signature = inspect.signature(build)

    @functools.wraps(build)
    def build_dataloader(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        loader = bound.arguments['dataloader']
        if isinstance(loader, dict) and not loader.get('num_workers'):
            loader = copy.copy(loader)
            for option in WORKER_OPTIONS:
                loader.pop(option, None)
            bound.arguments['dataloader'] = loader
        return build(*bound.args, **bound.kwargs)

    return build_dataloader


def keep_runs_apart() -> str | None:
    """Give each run of a process a name, a log and a folder of its own.

    mmengine names runs by the second in which they began, and hands out what has the
    name already: the state, the log and the drawings of another run. A visualizer that
    a config names is that of the first run for good.

    Returns:
        The reason; the gap is there with every supported mmengine.
    """
    from mmengine._strategy import BaseStrategy
    from mmengine.runner import FlexibleRunner, Runner

    Runner.setup_env = _with_own_time(Runner.setup_env)
    BaseStrategy._setup_env = _with_own_time(BaseStrategy._setup_env)
    for runner in (Runner, FlexibleRunner):
        runner.build_visualizer = _with_own_name(runner.build_visualizer)
    return 'mmengine takes runs that begin in one second for one.'


def _with_own_time(setup: Callable) -> Callable:
    """Number the runs of a second; all processes of a run have begun the same ones."""
    from mmengine.logging import MessageHub

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
    from mmengine.visualization import Visualizer

    @functools.wraps(build)
    def build_visualizer(self, visualizer=None):
        name = visualizer.get('name') if isinstance(visualizer, dict) else None
        if name in Visualizer._instance_dict:
            visualizer = dict(visualizer, name=f'{name}_{self.experiment_name}')
        return build(self, visualizer)

    return build_visualizer


def _change_data_parallel(change: Callable[[dict], object]) -> None:
    """Change the arguments that mmengine's data-parallel wrapper gets for RF-DETR."""
    from mmengine.model import MMDistributedDataParallel

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def init(self, module, *args, **kwargs):
        if is_rfdetr(module):
            change(kwargs)
        original(self, module, *args, **kwargs)

    MMDistributedDataParallel.__init__ = init


def _stay_on_this_machine() -> None:
    """Let processes of one machine talk over its loopback interface.

    gloo looks up the machine's own name to choose an interface, which many containers
    and closed networks cannot answer; it then fails or warns.
    """
    if os.environ.get('MASTER_ADDR') not in ('127.0.0.1', '::1', 'localhost'):
        return
    for _, name in socket.if_nameindex():
        if name in ('lo', 'lo0'):  # Linux, macOS
            os.environ.setdefault('GLOO_SOCKET_IFNAME', name)


def rename_broadcast_buffers() -> str | None:
    """Pass mmengine's ``broadcast_buffers`` on under the name that torch now wants.

    mmengine switches the synchronisation of buffers in every forward off. Newer
    versions of torch renamed the switch and warn on every rank about the old name; the
    new one also makes the buffers of all ranks equal once, at the start.

    Returns:
        The reason, or None with a torch that has the old name only.
    """
    from torch.nn.parallel import DistributedDataParallel

    arguments = inspect.signature(DistributedDataParallel.__init__).parameters
    if 'forward_sync_buffers' not in arguments:
        return None

    def rename(arguments):
        if 'broadcast_buffers' in arguments:
            arguments['forward_sync_buffers'] = arguments.pop('broadcast_buffers')

    _change_data_parallel(rename)
    return "torch deprecates an argument that mmengine's data-parallel training passes."
