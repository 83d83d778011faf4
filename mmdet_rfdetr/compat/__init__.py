"""Bridges over gaps in third-party packages, and the only place that knows them.

One function closes one gap. It looks whether the gap exists in this environment,
closes it, and returns the reason as one sentence; without the gap it changes nothing
and returns ``None``. ``python -m mmdet_rfdetr env`` prints what is active and why.

This package is a guest in the processes of others. What is closed on import is what
cannot wait until a model is built, and is listed in the README; the rest waits, and
where it can be told apart touches RF-DETR alone.
"""

from collections.abc import Callable

from ..errors import MissingOpError
from .checkpoints import (
    load_checkpoints_safely,
    load_from_http,
    load_from_local,
    run_no_stored_config,
)
from .inferring import detect_as_trained, draw_as_trained, infer_as_trained
from .operators import (
    EXTENSION,
    FULL_MMCV,
    require_compiled_ops,
    require_mmcv,
    stand_in_for_compiled_ops,
    stub_compiled_ops,
)
from .packages import (
    find_shipped_configs,
    get_installed_path,
    give_lvis_old_numpy,
    is_installed,
    replace_pkg_resources,
    version_of,
)
from .running import (
    keep_runs_apart,
    launch_on_cpu,
    load_without_workers,
    rename_broadcast_buffers,
    wrap_on_cpu,
)
from .warned import (
    find_functions_of_mmengine,
    import_old_torch,
    infer_without_logging_backends,
    silence_boxes_at_the_border,
    silence_old_torch,
    without_file_client_warnings,
)

__all__ = [
    'EXTENSION',
    'FULL_MMCV',
    'MissingOpError',
    'active',
    'apply',
    'apply_to_model',
    'get_installed_path',
    'is_installed',
    'load_from_http',
    'load_from_local',
    'require_compiled_ops',
    'stand_in_for_compiled_ops',
    'version_of',
    'without_file_client_warnings',
]

ON_IMPORT = (
    import_old_torch,
    replace_pkg_resources,
    stub_compiled_ops,
    load_checkpoints_safely,
    run_no_stored_config,
    launch_on_cpu,
    load_without_workers,
    keep_runs_apart,
    find_shipped_configs,
    give_lvis_old_numpy,
    detect_as_trained,
)
WITH_A_MODEL = (
    silence_old_torch,
    wrap_on_cpu,
    rename_broadcast_buffers,
    infer_without_logging_backends,
    find_functions_of_mmengine,
    silence_boxes_at_the_border,
    infer_as_trained,
    draw_as_trained,
)
_active: dict[str, str] = {}


def apply() -> None:
    """Close the gaps that cannot wait; a second call changes nothing.

    Raises:
        ImportError: neither mmcv nor mmcv-lite is installed.
    """
    require_mmcv()
    _close(ON_IMPORT)


def apply_to_model() -> None:
    """Close the gaps that matter once there is a model of RF-DETR."""
    _close(WITH_A_MODEL)


def _close(fixes: tuple[Callable[[], str | None], ...]) -> None:
    for fix in fixes:
        if fix.__name__ in _active:
            continue
        reason = fix()
        if reason is not None:
            _active[fix.__name__] = reason


def active() -> dict[str, str]:
    """Return the name and the reason of every fix that was made."""
    return dict(_active)
