"""Which query predicts which object."""

from .assigner import Matches, RFDETRHungarianAssigner, Targets

__all__ = ['Matches', 'RFDETRHungarianAssigner', 'Targets']
