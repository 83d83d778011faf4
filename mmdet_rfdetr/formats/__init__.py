"""What comes in other forms: files of other packages, images of more channels."""

from .. import compat
from ..checkpoints.loading import GUARDS
from ..data.annotations import OTHER_FORMATS
from . import lora, patch_kernel, variants, vit  # noqa: F401
from .channels import RFDETRDataPreprocessor
from .convert import convert_checkpoint
from .datasets import RFDETRCsvDataset, RFDETRVocDataset, RFDETRYoloDataset, read_other
from .guard import no_code_in_files
from .lvis import give_lvis_old_numpy
from .reading import run_no_stored_config

__all__ = [
    'RFDETRCsvDataset',
    'RFDETRDataPreprocessor',
    'RFDETRVocDataset',
    'RFDETRYoloDataset',
    'convert_checkpoint',
]

compat.ON_IMPORT += [give_lvis_old_numpy, run_no_stored_config]
GUARDS.append(no_code_in_files)
OTHER_FORMATS.append(read_other)
