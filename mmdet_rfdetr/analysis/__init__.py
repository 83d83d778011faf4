"""Whether a run can learn, and pictures and figures of what it did."""

from .health import RFDETRHealthHook
from .summary_hook import RFDETRSummaryHook

__all__ = ['RFDETRHealthHook', 'RFDETRSummaryHook']
