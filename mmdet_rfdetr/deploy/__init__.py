"""Files for others: what other packages load."""

from .convert import convert_checkpoint

__all__ = ['convert_checkpoint']
