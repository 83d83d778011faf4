"""The parsers of the tools, for a tool that does not lie beside them.

They are in ``rfdetr_arguments.py``, which the tools import from their own folder, since
they parse before they import this package. A copy of a tool in a project of its own
takes them from here, and so does a tool that Python runs without its folder (``-P``,
``PYTHONSAFEPATH``).
"""

import importlib.util

from .main import tool_folders

_path = tool_folders()[0] / 'tools' / 'rfdetr_arguments.py'
_spec = importlib.util.spec_from_file_location('rfdetr_arguments', _path)
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)


def __getattr__(name: str) -> object:
    """What that file defines."""
    return getattr(_shared, name)
