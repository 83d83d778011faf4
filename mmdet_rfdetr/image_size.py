"""The input size of a config, changed in one place.

Position table, pipelines and multi-scale training all depend on the input size.
Every part that does has a key ``image_size`` (and ``size_divisor`` or
``pad_size_divisor``, the patch size times the windows along a side), so that one
function can keep them in step.
"""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from .errors import ImageSizeError

DIVISOR_KEYS = ('size_divisor', 'pad_size_divisor')


def set_image_size(cfg: Config | dict, image_size: int) -> None:
    """Change the input size and everything that depends on it, in place.

    In a config file, the inherited settings are at hand as ``_base_``::

        _base_ = __import__('mmdet_rfdetr').config('rfdetr_nano_coco.py')
        __import__('mmdet_rfdetr').set_image_size(_base_, 512)

    On the command line of ``tools/train.py`` and ``tools/test.py`` the same is
    ``--cfg-options image_size=512``.

    The position table follows if it had one entry for each patch of the old
    size, as in all variants but Base and Large-deprecated; a checkpoint's table is
    resized when it is loaded.

    Args:
        cfg: a whole config, of which ``model.backbone`` has its final patch size
            and windows.
        image_size: new side of the square input, in pixels.

    Raises:
        ImageSizeError: if the size is no whole number, or does not divide by patch
            size times windows.
    """
    model = cfg['model']
    backbone = model['backbone']
    divisor = model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
    reason = f'pad_size_divisor {divisor}'
    if 'num_windows' in backbone:  # the ViT of RF-DETR
        patch_size, num_windows = backbone['patch_size'], backbone['num_windows']
        divisor = patch_size * num_windows
        reason = f'{patch_size=} x {num_windows=}'
    is_number = isinstance(image_size, int)
    if not is_number or image_size <= 0 or image_size % divisor:
        below = max(1, image_size // divisor) * divisor if is_number else divisor
        raise ImageSizeError(
            f'image_size={image_size} must be a multiple of {divisor} ({reason}), as '
            f'{below} or {below + divisor}.'
        )
    table = backbone.get('pos_embed_size')
    if table is not None and table * backbone['patch_size'] in image_sizes(cfg):
        backbone['pos_embed_size'] = image_size // backbone['patch_size']
    for part in _dicts(cfg):
        if 'image_size' in part:
            part['image_size'] = image_size
        for key in DIVISOR_KEYS:
            if key in part:
                part[key] = divisor


def image_sizes(cfg: Config | dict) -> set[int]:
    """All input sizes that a config and its parts state; one, if they agree."""
    return {part['image_size'] for part in _dicts(cfg) if 'image_size' in part}


def _dicts(value: Any) -> Iterator[dict]:
    """Every dict within nested dicts, lists and tuples."""
    if isinstance(value, Config):
        value = value._cfg_dict
    if isinstance(value, dict):
        yield value
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for item in list(value):
        yield from _dicts(item)
