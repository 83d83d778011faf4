"""Converting a checkpoint file between the official format and mmengine's."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..checkpoints import coco_rows, lora_entries
from ..checkpoints.expected import entries_that_fit
from ..checkpoints.layout import class_names, to_official_layout
from ..checkpoints.loading import load_checkpoint_file
from ..checkpoints.names import from_official, is_official, is_own, to_official
from ..checkpoints.saving import save_checkpoint_file
from ..errors import CheckpointError

FORMATS = ('official', 'mmdet')

UNUSED_CLASS_BIAS = -100.0
"""Logit of a class row that is added for the official layout: never the best one."""


def convert_checkpoint(
    source: str, target: str, *, to: str | None = None, overwrite: bool = False
) -> str:
    """Convert a checkpoint file; its weights are not fitted to any model.

    LoRA adapters are merged into the weights.

    Args:
        source: Official file or one of this package.
        target: File to write, ``.pth``, ``.pt`` or ``.safetensors``.
        to: ``'official'`` or ``'mmdet'``; None for the one that the source is not.
        overwrite: Replace an existing target.

    Returns:
        One line on what was done.

    Raises:
        CheckpointError: the source is no RF-DETR checkpoint, or the target exists or
            cannot be written.
        FileNotFoundError: there is no source.
    """
    if to not in (*FORMATS, None):
        raise ValueError(f'to={to!r}: choose one of {", ".join(FORMATS)}.')
    if os.path.exists(target) and not overwrite:
        raise CheckpointError(
            f'{target} exists: choose another name, or replace it with --overwrite.'
        )
    checkpoint = load_checkpoint_file(source)
    weights = checkpoint.get('state_dict', {})
    official = is_official(weights)
    if not official and not is_own(weights):
        raise CheckpointError(
            f'{source} is no RF-DETR checkpoint: give an official file or one that '
            'this package wrote.'
        )
    if to is None:
        to = 'mmdet' if official else 'official'
    converted, note = _convert(source, checkpoint, official, to)
    save_checkpoint_file(converted, target)
    return f'{target}: {to} checkpoint made from {source}{note}.'


@entries_that_fit()
def _convert(
    source: str, checkpoint: Mapping, official: bool, to: str
) -> tuple[dict, str]:
    """The content of the converted file, and a few words on it."""
    state_dict, adapters, scale = lora_entries.separate(checkpoint['state_dict'])
    meta = checkpoint.get('meta', {})
    own = from_official(state_dict) if official else state_dict
    if official:
        _refuse_unnamed(source, state_dict, own, 'this package')
    note = ''
    if adapters:
        own = lora_entries.merge(own, adapters, scale)
        note = ', LoRA adapters merged into its weights'
    if to == 'mmdet':
        return {'state_dict': own, 'meta': meta}, note
    if not official:
        own, rows = add_unused_class_rows(own, class_names(meta))
        note += rows
    renamed = to_official(own)
    _refuse_unnamed(source, own, renamed, 'the official package')
    if not is_official(renamed):
        raise CheckpointError(
            f'{source} holds no ViT of the official package: give a file of a model '
            'with RFDETRBackbone.'
        )
    return to_official_layout(renamed, meta), note


def _refuse_unnamed(
    source: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor], whose: str
) -> None:
    """Stop at entries that kept their names, since the other format has none."""
    unnamed = [name for name in after if name in before]
    if unnamed:
        raise CheckpointError(
            f'{source} holds {len(unnamed)} entries that no model of {whose} has '
            f'({unnamed[0]}, ...); keypoint models are not supported.'
        )


def add_unused_class_rows(
    state_dict: Mapping[str, Tensor], names: Sequence[str] | None
) -> tuple[Mapping[str, Tensor], str]:
    """Give a model of this package the class rows that the official layout has.

    There a model for C classes has C + 1 rows, the last one unused, and a model for
    COCO one row for each category id. Here there is one for each class.

    Args:
        state_dict: Own names to tensors.
        names: The model's class names. Unless there is one for each row, the model
            has the official layout already, or nothing is known of it.

    Returns:
        Own names to tensors, unchanged if nothing had to be added, and a few words.
    """
    num_classes = len(state_dict['bbox_head.fc_cls.weight'])
    if not names or len(names) != num_classes:
        return state_dict, ''
    if coco_rows.are_label_names(names):
        places, num_rows = coco_rows.CATEGORY_IDS, coco_rows.NUM_ID_ROWS
        note = ', class rows placed by COCO category id'
    else:
        places, num_rows = range(num_classes), num_classes + 1
        note = ', with an unused class row at the end'
    spread = OrderedDict(state_dict)
    for name, value in state_dict.items():
        if '.fc_cls.' not in name:
            continue
        axis = int(name.startswith('query_selection.'))
        shape = list(value.shape)
        shape[axis] = num_rows
        filler = UNUSED_CLASS_BIAS if name.endswith('.bias') else 0
        spread[name] = value.new_full(shape, filler).index_copy(
            axis, torch.tensor(places), value
        )
    return spread, note
