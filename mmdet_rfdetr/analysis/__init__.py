"""Pictures and figures of what a run did."""

from .summary_hook import RFDETRSummaryHook

__all__ = ['RFDETRSummaryHook']
