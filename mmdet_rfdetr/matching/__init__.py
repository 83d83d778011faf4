"""Which query predicts which object."""

from .assigner import RFDETRHungarianAssigner
from .stages import Matches, Stages, Targets

__all__ = ['Matches', 'RFDETRHungarianAssigner', 'Stages', 'Targets']
