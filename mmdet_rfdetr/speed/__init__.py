"""The same numbers sooner: recorded, compiled, deployed; matched and loaded faster."""

from .allocator import RFDETRAllocatorHook
from .detector import RFDETR
from .device_solver import DeviceSolver
from .evaluation_engines import UltrafastEval
from .host_solver import HostSolver
from .jittered import RFDETRLoadJittered

__all__ = [
    'DeviceSolver',
    'HostSolver',
    'RFDETR',
    'RFDETRAllocatorHook',
    'RFDETRLoadJittered',
    'UltrafastEval',
]
