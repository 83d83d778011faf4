"""Reads data sets as people have them: COCO, YOLO, Pascal VOC, CSV.

Every reader gives one form, the document of a COCO file: lists ``images`` (``id``,
``file_name``, ``height``, ``width``), ``annotations`` (``id``, ``image_id``,
``category_id``, ``bbox`` as x, y, width, height in pixels) and ``categories``. What is
wrong in a file stays in it, so that one set of checks finds it in every format, and the
``id`` of an object says where it stands: ``labels/0001.txt:3``. It needs no PyTorch.

>>> found = find_dataset('data/mine')
>>> found.format, found.classes, list(found.splits)
('yolo', ['cat', 'dog'], ['train', 'val'])
>>> document = found.splits['train'].document()
"""

import importlib

_HOMES = {
    'files': ('DatasetError',),
    'coco': ('read_coco',),
    'yolo': ('read_yolo',),
    'voc': ('read_voc',),
    'csv_boxes': ('read_csv',),
    'reading': ('Found', 'Split', 'find_dataset', 'image_root', 'kind_of', 'read'),
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str):
    # Pillow and PyYAML wait until something is read: tools parse their arguments first.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f'.{module}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
