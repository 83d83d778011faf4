"""What other packages define: official files to write, DINOv2 files, and adapters."""

from . import lora, vit  # noqa: F401
from .convert import convert_checkpoint

__all__ = ['convert_checkpoint']
