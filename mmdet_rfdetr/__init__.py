"""RF-DETR for MMDetection 3.x: importing it registers every part.

A project's config inherits from a shipped one with::

    _base_ = __import__('mmdet_rfdetr').config('rfdetr_coco.py')
"""

import importlib
import pkgutil

from mmdet_rfdetr import compat

compat.apply()

# Importing a part registers what it holds; only now, because they import MMDetection.
from mmdet_rfdetr import (  # noqa: E402, F401
    data,
    evaluation,
    losses,
    matching,
    models,
    precision,
    training,
)

# What stands beside the core is found and not named, so that each can be removed.
for part in pkgutil.iter_modules(__path__, f'{__name__}.'):
    if part.ispkg:
        importlib.import_module(part.name)
compat.apply()  # what they add to it

from mmdet_rfdetr.image_size import set_image_size  # noqa: E402
from mmdet_rfdetr.shipped import config  # noqa: E402

__all__ = ['config', 'set_image_size']
__version__ = '0.1.0'
