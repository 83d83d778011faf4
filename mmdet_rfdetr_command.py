"""The console command ``mmdet-rfdetr``, which is ``python -m mmdet_rfdetr``.

Importing the package imports PyTorch and MMDetection. This module lies beside it, so
that the help and a mistyped word need none of that.
"""

import importlib.util
import sys
from pathlib import Path

if (process := sys.modules.get('multiprocessing.process')) and process.parent_process():
    # A worker that was not forked imports what began its parent, and is then sent parts
    # of MMDetection, which may need the package to be imported.
    import mmdet_rfdetr  # noqa: F401


def main() -> None:
    """Run the command line of the package without importing the package."""
    (folder,) = importlib.util.find_spec('mmdet_rfdetr').submodule_search_locations
    path = Path(folder, 'command_line', 'main.py')
    if not path.is_file():
        raise SystemExit(
            f'error: this installation has no command line ({path} is not there): use '
            'the package from Python, or install it whole.'
        )
    spec = importlib.util.spec_from_file_location('mmdet_rfdetr_command_line', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.append(str(Path.cwd()))  # as with python -m, but hides nothing
    module.main('mmdet-rfdetr')
