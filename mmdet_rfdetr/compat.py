"""Bridges over gaps in third-party packages, and the only place that knows them.

One function closes one gap. It looks whether the gap exists in this environment,
closes it, and returns the reason as one sentence; without the gap it changes nothing
and returns ``None``. ``python -m mmdet_rfdetr env`` prints what is active and why.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

_MMCV_HINT = 'pip install "mmcv-lite>=2.0.0rc4,<2.2.0"'
_FULL_MMCV_HINT = (
    'pip uninstall mmcv-lite, then pip install "mmcv>=2.0.0rc4,<2.2.0" '
    '(a compiler is needed)'
)


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
            f'run {_MMCV_HINT}.'
        )


class MissingOp:
    """A stand-in for one compiled mmcv operator: importable, not callable.

    Args:
        name: The operator's name in ``mmcv._ext``.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'MissingOp({self.name!r})'

    def __call__(self, *args, **kwargs):
        """Say which operator is missing and how to get it.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f'The compiled operator {self.name!r} is not part of mmcv-lite. RF-DETR '
            f'does not use it; a model that does needs full mmcv: {_FULL_MMCV_HINT}.'
        )


class _OpsModule(types.ModuleType):
    """``mmcv._ext`` with a :class:`MissingOp` under every name."""

    def __getattr__(self, name: str) -> MissingOp:
        # Dunder names are questions that Python asks of any module ("do you have a
        # __path__?"); to answer them with an operator would be a lie.
        if name.startswith('__'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        return MissingOp(name)


class _OpsFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``mmcv._ext`` when no other finder does."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname != 'mmcv._ext':
            return None
        return importlib.machinery.ModuleSpec(fullname, self)

    def create_module(self, spec):
        return _OpsModule(spec.name)

    def exec_module(self, module):
        """Nothing to run: the module's names are made on demand."""


def stub_compiled_ops() -> str | None:
    """Let ``mmcv.ops`` be imported with mmcv-lite.

    Many modules of MMDetection import ``mmcv.ops`` at their top, which loads the
    compiled ``mmcv._ext``; mmcv-lite has none, so ``import mmdet.models`` fails
    although RF-DETR needs no operator of it. The finder goes last, so a compiled
    extension always wins, and it hands out a real module spec, which the import
    system and mmengine's Runner look at.

    Returns:
        The reason, or None with a full mmcv.
    """
    package = importlib.util.find_spec('mmcv')
    compiled = importlib.machinery.PathFinder.find_spec(
        'mmcv._ext', package.submodule_search_locations
    )
    if compiled is not None:
        return None
    if not any(isinstance(finder, _OpsFinder) for finder in sys.meta_path):
        sys.meta_path.append(_OpsFinder())
    return 'mmcv-lite has no compiled operators, which MMDetection imports.'


_FIXES = (stub_compiled_ops,)
_active: dict[str, str] = {}


def apply() -> None:
    """Close every gap that this environment has; a second call changes nothing.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    require_mmcv()
    for fix in _FIXES:
        reason = fix()
        if reason is not None:
            _active[fix.__name__] = reason


def active() -> dict[str, str]:
    """Return the name and the reason of every fix that :func:`apply` made."""
    return dict(_active)
