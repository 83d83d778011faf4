"""Evaluation of LVIS with a NumPy that its package does not know."""

import importlib.util
from types import ModuleType

import numpy as np


def give_lvis_old_numpy() -> str | None:
    """Let ``lvis`` count in ``np.float``, which NumPy 1.24 removed.

    Returns:
        The reason, or None without the package or with a NumPy that has it.
    """
    if importlib.util.find_spec('lvis') is None or 'float' in vars(np):
        return None
    from lvis import eval as lvis_eval

    old = ModuleType('numpy')
    vars(old).update(vars(np), float=float)
    lvis_eval.np = old
    return 'lvis uses a name of NumPy that is gone.'
