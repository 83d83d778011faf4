"""Whether a run learns, where its numbers break, and pictures of what it did."""

from .. import compat
from .agreement import RFDETRPrecisionHook
from .drawable_images import draw_as_trained, draw_on_what_was_read
from .health import RFDETRHealthHook
from .non_finite import RFDETRNonFiniteHook
from .progress import RFDETRProgressHook
from .separate_runs import keep_runs_apart
from .summary_hook import RFDETRSummaryHook

__all__ = [
    'RFDETRHealthHook',
    'RFDETRNonFiniteHook',
    'RFDETRPrecisionHook',
    'RFDETRProgressHook',
    'RFDETRSummaryHook',
]

compat.ON_IMPORT.append(keep_runs_apart)
compat.WITH_A_MODEL += [draw_as_trained, draw_on_what_was_read]
