"""One precision for training, validation, testing and inference.

``policy`` states it and enters it in the detector's forward, ``islands`` keeps
what needs float32 in float32, ``optim_wrapper`` scales the loss where float16
needs it.
"""

from ..errors import PrecisionError
from .islands import float32_island
from .optim_wrapper import RFDETRAmpOptimWrapper, RFDETRUniformOptimWrapperConstructor
from .policy import PrecisionPolicy, autocast_on, find_policy

__all__ = [
    'PrecisionError',
    'PrecisionPolicy',
    'RFDETRAmpOptimWrapper',
    'RFDETRUniformOptimWrapperConstructor',
    'autocast_on',
    'find_policy',
    'float32_island',
]
