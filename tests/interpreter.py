"""Python in a process of its own, for what depends on the order of imports."""

import os
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
