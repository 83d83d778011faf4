"""Python in a process of its own, for what depends on the order of imports."""

import os
import socket
import subprocess
import sys
import textwrap

from tests.fixtures import REPOSITORY

# Makes a module look as if it were not installed: the finder of installed modules does
# not see it, and everything else stays as it is.
HIDE = """
import importlib.machinery
_find_spec = importlib.machinery.PathFinder.find_spec
def _find_others(name, *args):
    return None if name == {module!r} else _find_spec(name, *args)
importlib.machinery.PathFinder.find_spec = _find_others
"""


def hide(module):
    """Code that hides an installed module from the imports that follow."""
    return HIDE.format(module=module)


def run(command, *, cwd=REPOSITORY, **environment):
    """Run a command on the CPU with this checkout importable."""
    environment = {
        **os.environ,
        'PYTHONPATH': str(REPOSITORY),
        'CUDA_VISIBLE_DEVICES': '',
        'OMP_NUM_THREADS': '1',
        **{name: str(value) for name, value in environment.items()},
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_code(code, *arguments, **kwargs):
    """Run Python code in a fresh interpreter, see :func:`run`."""
    return run([sys.executable, '-c', textwrap.dedent(code), *arguments], **kwargs)


def loopback():
    """The interface over which processes of this machine reach each other, or None."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ('lo', 'lo0') if name in names), None)


# Nothing that needs the machine's name to be known, or a network: containers and
# closed networks lack both. The port is a free one.
TORCHRUN = (
    *(sys.executable, '-m', 'torch.distributed.run'),
    *('--rdzv-backend=c10d', '--rdzv-endpoint=127.0.0.1:0', '--local-addr=127.0.0.1'),
)


def run_together(command, *, processes=2, **kwargs):
    """Run a Python file, or ``-m`` and a module, in several processes; see :func:`run`.

    Args:
        command: what follows ``python`` on the command line.
        processes: how many.
        **kwargs: see :func:`run`.
    """
    if loopback() is not None:
        kwargs.setdefault('GLOO_SOCKET_IFNAME', loopback())
    return run([*TORCHRUN, f'--nproc-per-node={processes}', *command], **kwargs)
