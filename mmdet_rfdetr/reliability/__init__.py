"""Runs that can be left and entered at any step, and stop before they are ruined."""

from .checkpoint_hook import RFDETRCheckpointHook
from .non_finite import RFDETRNonFiniteHook
from .train_loop import RFDETRTrainLoop

__all__ = [
    'RFDETRCheckpointHook',
    'RFDETRNonFiniteHook',
    'RFDETRTrainLoop',
]
