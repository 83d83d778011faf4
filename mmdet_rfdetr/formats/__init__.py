"""What other packages define: the official layout of files, and adapters of peft."""

from . import lora  # noqa: F401
from .convert import convert_checkpoint

__all__ = ['convert_checkpoint']
