"""Compiled operators of mmcv, which mmcv-lite does not have."""

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from ..errors import MissingOpError

MMCV = '"mmcv-lite>=2.1.0,<2.2.0"'
FULL_MMCV = (  # to be pasted into a shell: nothing follows it
    'pip uninstall -y mmcv-lite && pip install "setuptools<80" wheel ninja && '
    'pip install --no-build-isolation "mmcv>=2.1.0,<2.2.0"'
)
EXTENSION = 'mmcv._ext'
MODULES = (
    'mmdet.apis',
    'mmdet.models.dense_heads.dense_test_mixins',
    'mmdet.utils.large_image',
)
"""Modules of MMDetection that import all of its modules that import ``mmcv.ops``."""


def require_mmcv() -> None:
    """Stop with directions where neither mmcv nor mmcv-lite is installed.

    Neither can be a plain dependency, because pip would install both side by side
    over the same files; MMDetection itself only fails with a missing module.

    Raises:
        ImportError: no distribution provides the module ``mmcv``.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError(
            'mmdet_rfdetr needs mmcv and found neither mmcv-lite nor mmcv: '
            f'run pip install {MMCV}.'
        )


def call_missing_op(name: str, *args, **kwargs):
    """Stand in for one compiled mmcv operator: say how to get it.

    Args:
        name: The operator's name in ``mmcv._ext``.
        *args: What the operator takes.
        **kwargs: The same.

    Raises:
        MissingOpError: always.
    """
    raise MissingOpError(
        f'The compiled operator {name!r} is not part of mmcv-lite. RF-DETR itself does '
        f'not use it; what does needs full mmcv: {FULL_MMCV}'
    )


def _missing_op(name: str):
    # Dunder names are questions that Python asks of any module ("do you have a
    # __path__?"); to answer them with an operator would be a lie.
    if name.startswith('__'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")
    if name in ('get_compiler_version', 'get_compiling_cuda_version'):
        return functools.partial(str, 'n/a')
    return functools.partial(call_missing_op, name)


_loaded: dict[str, ModuleType] = {}


@contextmanager
def stand_in_for_compiled_ops() -> Iterator[None]:
    """With mmcv-lite, let ``mmcv.ops`` be imported while it lasts.

    Before and after, importing it fails as it does without this package: code that
    asks whether there are compiled operators gets the right answer. What was imported
    keeps the operators that it took.
    """
    if has_compiled_ops():
        yield
        return
    import mmcv

    if not _loaded:
        spec = importlib.machinery.ModuleSpec(EXTENSION, None)
        _loaded[EXTENSION] = importlib.util.module_from_spec(spec)
        _loaded[EXTENSION].__getattr__ = _missing_op
    sys.modules.update(_loaded)
    mmcv._ext = _loaded[EXTENSION]
    try:
        yield
    finally:
        for name in list(sys.modules):
            if name == EXTENSION or f'{name}.'.startswith('mmcv.ops.'):
                _loaded[name] = sys.modules.pop(name)
        for name in ('ops', '_ext'):  # as attributes they would be found, too
            vars(mmcv).pop(name, None)


def has_compiled_ops() -> bool:
    """Whether the installed mmcv has compiled operators."""
    package = importlib.util.find_spec('mmcv')
    found = importlib.machinery.PathFinder.find_spec(
        EXTENSION, package.submodule_search_locations
    )
    return found is not None


def stub_compiled_ops() -> str | None:
    """Import MMDetection with mmcv-lite.

    Many modules of MMDetection import ``mmcv.ops`` at their top, which loads the
    compiled ``mmcv._ext``; mmcv-lite has none, so ``import mmdet.models`` fails
    although RF-DETR needs no operator of it. All of these are imported here.

    Returns:
        The reason, or None with a full mmcv.
    """
    if has_compiled_ops():
        return None
    with stand_in_for_compiled_ops():
        for name in MODULES:
            importlib.import_module(name)
    return 'mmcv-lite has no compiled operators, which MMDetection imports.'
