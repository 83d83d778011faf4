"""One precision for training, validation, testing and inference.

``policy`` states it and enters it in the detector's forward, ``islands`` keeps
what needs float32 in float32, ``optim_wrapper`` scales the loss where float16
needs it.
"""

from ..errors import PrecisionError
from .islands import float32_island
from .optim_wrapper import (
    RFDETRAmpOptimWrapper,
    RFDETRUniformOptimWrapperConstructor,
    resolve_optim_wrapper,
)
from .policy import PrecisionPolicy, autocast_on, find_policies, find_policy
from .weights import WeightDtypes

__all__ = [
    'PrecisionError',
    'PrecisionPolicy',
    'RFDETRAmpOptimWrapper',
    'RFDETRUniformOptimWrapperConstructor',
    'WeightDtypes',
    'autocast_on',
    'find_policies',
    'find_policy',
    'float32_island',
    'resolve_optim_wrapper',
]
