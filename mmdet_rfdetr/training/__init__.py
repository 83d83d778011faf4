"""Parts of the training recipe that a config selects."""

from .ema import RFDETREMA, RFDETREMAHook
from .lr_schedule import RFDETRLR
from .optim_constructor import RFDETROptimWrapperConstructor

__all__ = [
    'RFDETREMA',
    'RFDETREMAHook',
    'RFDETRLR',
    'RFDETROptimWrapperConstructor',
]
