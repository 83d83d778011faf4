"""Parts of the training recipe that a config selects."""

from .allocator import RFDETRAllocatorHook
from .checkpoint_hook import RFDETRCheckpointHook
from .drop_schedule import RFDETRDropScheduleHook
from .ema import RFDETREMA, RFDETREMAHook
from .health import RFDETRHealthHook
from .lr_schedule import RFDETRLR, RFDETRParamSchedulerHook
from .non_finite import RFDETRNonFiniteHook
from .optim_constructor import RFDETROptimWrapperConstructor
from .train_loop import RFDETRTrainLoop
from .val_loss import RFDETRValLossHook

__all__ = [
    'RFDETREMA',
    'RFDETREMAHook',
    'RFDETRAllocatorHook',
    'RFDETRCheckpointHook',
    'RFDETRDropScheduleHook',
    'RFDETRHealthHook',
    'RFDETRLR',
    'RFDETRNonFiniteHook',
    'RFDETROptimWrapperConstructor',
    'RFDETRParamSchedulerHook',
    'RFDETRTrainLoop',
    'RFDETRValLossHook',
]
