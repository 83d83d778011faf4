"""Converting a checkpoint file between the official format and mmengine's."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..checkpoints.class_rows import (
    CATEGORY_IDS,
    CLASS_LAYER,
    NUM_ID_ROWS,
    are_label_names,
)
from ..checkpoints.hooks import FORMS
from ..checkpoints.layout import EXTRAS, INFO_KEY, class_names, entries_that_fit
from ..checkpoints.loading import load_checkpoint_file
from ..checkpoints.names import (
    KEYPOINT_MASK,
    VIT,
    count_members,
    from_official,
    is_official,
    is_own,
    to_official,
)
from ..checkpoints.writing import replacing, save_checkpoint_file
from ..errors import CheckpointError

FORMATS = ('official', 'mmdet')
SUFFIXES = ('.pth', '.pt', '.safetensors')

VIT_BLOCKS = 12
"""Blocks of every official ViT, those that no feature map needs included."""

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
    path = Path(target)
    if to not in (*FORMATS, None):
        raise ValueError(f'to={to!r}: choose one of {", ".join(FORMATS)}.')
    if path.suffix not in SUFFIXES:
        raise CheckpointError(
            f'{path}: a checkpoint ends in {", ".join(SUFFIXES)}; rename it.'
        )
    if os.path.exists(path) and not overwrite:
        raise CheckpointError(
            f'{path} exists: choose another name, or replace it with --overwrite.'
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
    is_safetensors = path.suffix == '.safetensors'
    (save_safetensors if is_safetensors else save_checkpoint_file)(converted, path)
    return f'{path}: {to} checkpoint made from {source}{note}.'


def save_safetensors(checkpoint: Mapping, path: str | Path) -> None:
    """Write a checkpoint as safetensors, with what JSON can say of the rest.

    Args:
        checkpoint: ``state_dict`` and ``meta``, or ``model`` and ``args``.
        path: of the file; a warning says what it lacks.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.torch import save

    rest = dict(checkpoint)
    weights = rest.pop('model', None)
    stored = {'official': rest}
    if weights is None:
        weights = rest.pop('state_dict')
        stored = {'meta': rest.get('meta', {})}
    lacking = []
    text = json.dumps(stored, skipkeys=True, default=lambda x: lacking.append(type(x)))
    # The format knows no strides, and no tensors that share their memory.
    apart = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
    with replacing(path) as file:
        file.write(save(apart, {'format': 'pt', INFO_KEY: text}))
    if lacking:
        kinds = ', '.join(sorted({kind.__name__ for kind in lacking}))
        print_log(
            f'{path} has null where JSON cannot say a value ({kinds}): write a .pth '
            'file to keep all.',
            logger='current',
            level=logging.WARNING,
        )


@entries_that_fit()
def _convert(
    source: str, checkpoint: Mapping, official: bool, to: str
) -> tuple[dict, str]:
    """The content of the converted file, and a few words on it."""
    meta = checkpoint.get('meta', {})

    def rename(entries: Mapping, _own: Mapping) -> Mapping:
        return from_official(entries) if official else entries

    for form in FORMS.values():  # a plain model is what others can load
        rename = form(rename)
    state_dict = checkpoint['state_dict']
    own = rename(state_dict, {})
    if official:
        _refuse_unnamed(source, state_dict, own, 'this package')
    if to == 'mmdet':
        return {'state_dict': own, 'meta': meta}, ''
    note = ''
    if not official:
        own, note = add_unused_class_rows(own, class_names(meta))
    renamed = to_official(add_unused_blocks(own))
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
            f'({unnamed[0]}, ...): give a file of RF-DETR alone.'
        )


def to_official_layout(state_dict: Mapping[str, Tensor], meta: Mapping) -> dict:
    """Bring weights with official names into the layout of an official file.

    Args:
        state_dict: Official names to tensors.
        meta: As in mmengine's layout. Arguments that came from an official file are
            given back; otherwise those that its loader reads are made.

    Returns:
        ``model`` and ``args``, and what else an official file brought.
    """
    kept = meta.get(INFO_KEY, {})
    args = kept.get('args')
    if not args:
        groups = count_members(state_dict, 'transformer.enc_output.')
        kernel = state_dict[VIT + 'embeddings.patch_embeddings.projection.weight']
        args = {
            'num_queries': len(state_dict['refpoint_embed.weight']) // groups,
            'group_detr': groups,
            'patch_size': kernel.shape[-1],
            'segmentation_head': 'segmentation_head.bias' in state_dict,
        }
        if state_dict[KEYPOINT_MASK].numel():
            args['use_grouppose_keypoints'] = True
        if names := class_names(meta):
            args['class_names'] = names
    extras = {key: kept[key] for key in EXTRAS if key in kept}
    return {'model': dict(state_dict), 'args': args, **extras}


def add_unused_blocks(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a ViT the blocks that no feature map needs, which the official model builds.

    Their linear layers are zeros and their norms the identity.

    Args:
        state_dict: Own names to tensors.
    """
    first = 'backbone.blocks.0.'
    num_built = count_members(state_dict, 'backbone.blocks.')
    filled = dict(state_dict)
    for name, like in state_dict.items():
        if not name.startswith(first):
            continue
        is_identity = '.norm' in name and name.endswith('.weight')
        fill = torch.ones_like if is_identity else torch.zeros_like
        for index in range(num_built, VIT_BLOCKS):
            filled[name.replace(first, f'backbone.blocks.{index}.')] = fill(like)
    return filled


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
    if are_label_names(names):
        places, num_rows = CATEGORY_IDS, NUM_ID_ROWS
        note = ', class rows placed by COCO category id'
    else:
        places, num_rows = range(num_classes), num_classes + 1
        note = ', with an unused class row at the end'
    spread = OrderedDict(state_dict)
    for name, value in state_dict.items():
        if CLASS_LAYER not in name:
            continue
        axis = int(name.startswith('query_selection.'))
        shape = list(value.shape)
        shape[axis] = num_rows
        filler = UNUSED_CLASS_BIAS if name.endswith('.bias') else 0
        spread[name] = value.new_full(shape, filler).index_copy(
            axis, torch.tensor(places), value
        )
    return spread, note
