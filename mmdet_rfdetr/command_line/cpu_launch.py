"""Several processes on a machine without an accelerator."""

import os
import socket


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
