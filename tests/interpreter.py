"""Python in a process of its own, for what depends on the order of imports."""

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

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


def run(command, *, cwd=REPOSITORY, timeout=600, **environment):
    """Run a command on the CPU with this checkout importable."""
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join((str(REPOSITORY), str(REPOSITORY / 'runtime'))),
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
        timeout=timeout,
    )


def run_code(code, *arguments, **kwargs):
    """Run Python code in a fresh interpreter, see :func:`run`."""
    return run([sys.executable, '-c', textwrap.dedent(code), *arguments], **kwargs)


def loopback():
    """The interface over which processes of this machine reach each other, or None."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ('lo', 'lo0') if name in names), None)


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return str(listener.getsockname()[1])


def _call(rank, processes, port, folder, function, arguments):
    """One of several processes; what it says goes to a file."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=port,
    )
    said = open(f'{folder}/rank{rank}.txt', 'w', buffering=1)  # noqa: SIM115
    sys.stderr = sys.stdout = said
    try:
        function(*arguments)
    except SystemExit as error:
        print(error.code)
        os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)
    os._exit(0)


def fork_together(function, *arguments, folder, processes=2, stops=False):
    """Call a function in processes that are told of one another as torchrun does.

    They have all that this process has imported, which takes seconds otherwise, and
    not its threads: evaluate with ``engine='pycocotools'`` in them.

    Args:
        function: what each of them calls; a SystemExit is printed.
        *arguments: of the function.
        folder: for what the processes say.
        processes: how many.
        stops: only the first of them is sure to end.

    Returns:
        The exit code of each process (1: SystemExit, 2: another error, negative: a
        signal), and what each said.
    """
    shared = processes, free_port(), folder, function, arguments
    fork = multiprocessing.get_context('fork').Process
    ranks = [fork(target=_call, args=(rank, *shared)) for rank in range(processes)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(0 if stops and process is not ranks[0] else 300)
    for process in ranks:
        process.kill()
        process.join()
    said = [Path(folder, f'rank{rank}.txt').read_text() for rank in range(processes)]
    return [process.exitcode for process in ranks], said
