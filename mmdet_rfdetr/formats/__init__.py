"""What comes in other forms: files of other packages, images of more channels."""

from .. import compat
from . import lora, vit  # noqa: F401
from .channels import RFDETRDataPreprocessor
from .convert import convert_checkpoint
from .lvis import give_lvis_old_numpy

__all__ = ['RFDETRDataPreprocessor', 'convert_checkpoint']

compat.ON_IMPORT.append(give_lvis_old_numpy)
