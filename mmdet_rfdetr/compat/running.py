"""Data loaders and data-parallel models."""

import copy
import functools
import inspect
from collections.abc import Callable

from torch import nn


def wrap_in_parallel() -> str:
    """Give mmengine's data-parallel wrapper arguments that suit RF-DETR.

    It names a device where there is no accelerator. It switches the synchronisation of
    buffers in every forward off by a name that newer versions of torch deprecate on
    every rank; the new one also makes the buffers of all ranks equal once. And it
    copies every gradient into the place where it is summed, and back.

    Returns:
        The reason; the gap is there with every version of torch.
    """
    from mmengine.device import get_device
    from mmengine.model import MMDistributedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    on_cpu = get_device() == 'cpu'
    arguments = inspect.signature(DistributedDataParallel.__init__).parameters
    is_renamed = 'forward_sync_buffers' in arguments
    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def init(self, module, *args, **kwargs):
        if is_rfdetr(module):
            kwargs.setdefault('gradient_as_bucket_view', True)
            if on_cpu:
                kwargs.pop('device_ids', None)
            if is_renamed and 'broadcast_buffers' in kwargs:
                kwargs['forward_sync_buffers'] = kwargs.pop('broadcast_buffers')
        original(self, module, *args, **kwargs)

    MMDistributedDataParallel.__init__ = init
    return "mmengine's data-parallel training copies gradients, and names a device."


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

    @functools.wraps(build)
    def build_dataloader(dataloader, *args, **kwargs):
        if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
            dataloader = copy.copy(dataloader)
            for option in WORKER_OPTIONS:
                dataloader.pop(option, None)
        return build(dataloader, *args, **kwargs)

    return build_dataloader
