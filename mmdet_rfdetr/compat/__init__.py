"""Bridges over gaps in third-party packages, and the only place that knows them.

One function closes one gap. It looks whether the gap exists in this environment,
closes it, and returns the reason as one sentence; without the gap it changes nothing
and returns ``None``. ``python -m mmdet_rfdetr env`` prints what is active and why.

This package is a guest in the processes of others. What is closed on import is what
cannot wait until a model is built, and is listed in ``docs/process.md``; the rest
waits, and where it can be told apart touches RF-DETR alone.
"""

from collections.abc import Callable, Iterable

from . import checkpoints, operators, packages, running, warned

Fix = Callable[[], str | None]
ON_IMPORT: list[Fix] = [
    warned.import_what_torch_deprecates,
    packages.replace_pkg_resources,
    operators.stub_compiled_ops,
    checkpoints.load_checkpoints_safely,
    running.load_without_workers,
    packages.find_shipped_configs,
]
WITH_A_MODEL: list[Fix] = [
    running.wrap_in_parallel,
    warned.silence_file_client,
    warned.find_functions_of_mmengine,
]
"""What can wait. What stands beside the core adds to both."""
_active: dict[str, str] = {}


def apply() -> None:
    """Close the gaps that cannot wait; a second call changes nothing.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    operators.require_mmcv()
    _close(ON_IMPORT)


def apply_to_model() -> None:
    """Close the gaps that matter once there is a model of RF-DETR."""
    _close(WITH_A_MODEL)
    # Each time: a program may have reset its filters since the last model.
    _active['silence_warnings'] = warned.silence_warnings()


def _close(fixes: Iterable[Fix]) -> None:
    for fix in fixes:
        if fix.__name__ not in _active and (reason := fix()) is not None:
            _active[fix.__name__] = reason


def active() -> dict[str, str]:
    """Return the name and the reason of every fix that was made."""
    return dict(_active)
