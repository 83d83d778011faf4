"""Writes data sets as COCO or YOLO, and tells what such a format cannot say.

What it writes is the document of a COCO file, which ``rfdetr_datasets`` makes of any
format. It needs no PyTorch.

>>> from rfdetr_datasets import find_dataset
>>> document = find_dataset('data/mine').splits['train'].document()
>>> for line in write_coco(document, 'train.json').lines():
...     print(line)
"""

from .coco import write_coco
from .images import place_images, target_names
from .usable import Lost
from .yolo import point_scheme, write_settings, write_yolo

__all__ = [
    'Lost',
    'place_images',
    'point_scheme',
    'target_names',
    'write_coco',
    'write_settings',
    'write_yolo',
]
