"""Formats of other packages: official files to write, DINOv2, adapters, LVIS."""

from .. import compat
from . import lora, vit  # noqa: F401
from .convert import convert_checkpoint
from .lvis import give_lvis_old_numpy

__all__ = ['convert_checkpoint']

compat.ON_IMPORT.append(give_lvis_old_numpy)
