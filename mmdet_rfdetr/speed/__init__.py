"""The same numbers sooner: recorded, compiled, deployed; matched and loaded faster."""

from .. import compat
from .allocator import RFDETRAllocatorHook
from .detector import RFDETR
from .device_solver import DeviceSolver
from .evaluation_engines import UltrafastEval
from .host_solver import HostSolver
from .jittered import RFDETRLoadJittered
from .plain_objects import is_plain
from .saving import format_configs_once, resume_without_copies, save_without_copies

__all__ = [
    'DeviceSolver',
    'HostSolver',
    'RFDETR',
    'RFDETRAllocatorHook',
    'RFDETRLoadJittered',
    'UltrafastEval',
    'is_plain',
]

compat.ON_IMPORT += [format_configs_once, save_without_copies, resume_without_copies]
