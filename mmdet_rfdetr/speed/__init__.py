"""The same numbers sooner: recorded, compiled, deployed; matched and loaded faster."""

from .allocator import RFDETRAllocatorHook
from .detector import RFDETR
from .device_solver import DeviceSolver
from .evaluation_engines import UltrafastEval
from .jittered import RFDETRLoadJittered

__all__ = [
    'DeviceSolver',
    'RFDETR',
    'RFDETRAllocatorHook',
    'RFDETRLoadJittered',
    'UltrafastEval',
]
