"""Parts of the training recipe that a config selects."""

from .class_names import RFDETRClassNamesHook
from .drop_schedule import RFDETRDropScheduleHook
from .ema import RFDETREMA, RFDETREMAHook
from .lr_schedule import RFDETRLR, RFDETRParamSchedulerHook
from .optim_constructor import RFDETROptimWrapperConstructor
from .val_loss import RFDETRValLossHook

__all__ = [
    'RFDETRClassNamesHook',
    'RFDETREMA',
    'RFDETREMAHook',
    'RFDETRDropScheduleHook',
    'RFDETRLR',
    'RFDETROptimWrapperConstructor',
    'RFDETRParamSchedulerHook',
    'RFDETRValLossHook',
]
