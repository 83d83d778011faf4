"""RF-DETR for MMDetection 3.x: importing it registers every part.

A project's config inherits from a shipped one with::

    _base_ = __import__('mmdet_rfdetr').config('rfdetr_coco.py')
"""

from pathlib import Path

from mmdet_rfdetr import compat

compat.apply()

# Importing a part registers it; only now, because they all import MMDetection.
from mmdet_rfdetr import (  # noqa: E402, F401
    analysis,
    data,
    evaluation,
    losses,
    matching,
    models,
    precision,
    training,
)
from mmdet_rfdetr.image_size import set_image_size  # noqa: E402

__all__ = ['config', 'set_image_size']
__version__ = '0.1.0'


def config(name: str) -> str:
    """Return the path of a config that comes with this package.

    Args:
        name: File name in ``configs/``, for example ``'rfdetr_nano_coco.py'``.

    Raises:
        FileNotFoundError: there is no such config; the message lists those there are.
    """
    package = Path(__file__).resolve().parent
    # The wheel holds the configs inside the package, a checkout beside it.
    folder = package / 'configs'
    if not folder.is_dir():
        folder = package.parent / 'configs'
    path = folder / name
    if not path.is_file():
        shipped = ', '.join(sorted(file.name for file in folder.glob('*.py')))
        raise FileNotFoundError(
            f'No config {name!r} in {folder}; there are: {shipped}.'
        )
    return str(path)
