"""Runs that can be left and entered at any step, and files that are complete."""

from .checkpoint_hook import RFDETRCheckpointHook
from .train_loop import RFDETRTrainLoop

__all__ = [
    'RFDETRCheckpointHook',
    'RFDETRTrainLoop',
]
