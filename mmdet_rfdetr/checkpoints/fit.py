"""Fitting a whole state dict to a model: its names, its sizes, and what is left."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..class_names import ClassMatch
from ..errors import CheckpointError
from . import adapt
from .adapt import Shape
from .architecture import refuse_another_variant
from .class_rows import describe, fit_class_rows, match_rows
from .names import count_members, from_official, is_official, is_own
from .report import LoadReport, Reshaped
from .vit_names import find_vit

Entries = OrderedDict[str, Tensor]
Shapes = Mapping[str, Shape]


def fit_model(
    state_dict: Mapping[str, Tensor],
    expected: Shapes,
    info: Mapping,
    *,
    own: Mapping[str, Tensor] | None = None,
    classes: Sequence[str] | None = None,
) -> tuple[Entries, LoadReport]:
    """Fit a state dict, official or of this package, to an RF-DETR model.

    Args:
        state_dict: Names to tensors.
        expected: Names to shapes of the model.
        info: What the file says about itself: ``num_queries``, ``group_detr`` and
            ``class_names``, as far as it does.
        own: Names to tensors of the model, for classes that the file does not have.
        classes: Class names of the model, None if it does not know them. Where both
            are named, class rows are taken by name, otherwise by position.

    Returns:
        Entries under the model's names, and a report of what was changed.

    Raises:
        CheckpointError: it is no RF-DETR checkpoint, or one of another variant, or
            its sizes cannot be fitted.
    """
    official = is_official(state_dict)
    if official:
        title = 'Official RF-DETR checkpoint'
        entries = from_official(state_dict)
    elif is_own(state_dict):
        title = 'RF-DETR checkpoint'
        entries = OrderedDict(state_dict)
    else:
        raise CheckpointError(_describe_stranger(state_dict))
    report = LoadReport(title, len(state_dict))
    refuse_another_variant(shapes(entries), expected)
    _settle_unused_vit_entries(entries, expected, 'backbone.')
    keep_groups = not official or _says_its_queries(entries, info)

    def fit(name: str, value: Tensor, shape: Shape) -> tuple[Tensor, str] | None:
        if name in ('reference_embedding', 'query_embedding'):
            how = 'first queries of each group' if keep_groups else 'first rows'
            return adapt.fit_query_table(value, shape, keep_groups=keep_groups), how
        if name.startswith(('bbox_head.fc_cls.', 'query_selection.')):
            return _fit_head(name, value, shape, info.get('class_names'))
        if name.startswith('backbone.'):
            return _fit_vit_entry(name.removeprefix('backbone.'), value, shape)
        return None

    match = find_class_rows(entries, expected, info, classes)
    if match is not None:
        before = shapes(entries)
        report.reshaped = [
            Reshaped(name, before[name], expected[name], 'class rows by name')
            for name in fit_class_rows(entries, own, match)
        ]
        report.notes = describe(match, classes)
    _fit_entries(entries, expected, fit, report)
    return entries, report


def find_class_rows(
    entries: Mapping[str, Tensor],
    expected: Shapes,
    info: Mapping,
    classes: Sequence[str] | None,
) -> ClassMatch | None:
    """Find the class rows of a file by name, if these are other ones than by position.

    Args:
        entries: Names to tensors, under the names of this package.
        expected: Names to shapes of the model.
        info: See :func:`fit_model`.
        classes: The same.
    """
    name = 'bbox_head.fc_cls.weight'
    if name not in entries or not classes or len(classes) != expected[name][0]:
        return None
    return match_rows(len(entries[name]), info.get('class_names'), classes)


def fit_backbone(
    state_dict: Mapping[str, Tensor], expected: Shapes
) -> tuple[Entries, LoadReport]:
    """Fit the ViT of any file that holds one to an ``RFDETRBackbone``.

    Args:
        state_dict: Names to tensors.
        expected: Names to shapes of the backbone.

    Returns:
        Entries under the backbone's names, and a report of what was changed.

    Raises:
        CheckpointError: there is no DINOv2 ViT in it, or one of another width or
            with too few blocks.
    """
    found = find_vit(state_dict)
    if found is None:
        raise CheckpointError(
            f'The checkpoint holds no DINOv2 backbone: {_first_names(state_dict)}; '
            'give a DINOv2 file (original or Hugging Face names) or an RF-DETR file.'
        )
    title, entries = found
    report = LoadReport(title, len(entries))
    _settle_unused_vit_entries(entries, expected, '')
    _fit_entries(entries, expected, _fit_vit_entry, report)
    return entries, report


def fits_exactly(state_dict: Mapping[str, Tensor], expected: Shapes) -> bool:
    """Tell whether a model can take every entry of a state dict as it is.

    Args:
        state_dict: Names to tensors; some of the model's may be missing.
        expected: Names to shapes of the model.
    """
    return all(
        name in expected and value.shape == expected[name]
        for name, value in state_dict.items()
    )


def shapes(entries: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Return the shape of each entry of a state dict."""
    return {name: tuple(value.shape) for name, value in entries.items()}


def refuse_fewer_layers(state_dict: Mapping[str, Tensor], expected: Shapes) -> None:
    """Stop if whole weights of this package are those of a smaller variant.

    All that they hold fits, and the layers that they lack would stay random. Parts of
    a model are left alone: whoever loads them knows. So is a model without masks that
    gets a mask head, since that is how masks are added to what was trained.

    Args:
        state_dict: Names to tensors, all of which fit.
        expected: Names to shapes of the model.

    Raises:
        CheckpointError: only decoder layers are missing.
    """
    missing = {name for name in expected if not name.startswith('mask_head.')}
    missing -= state_dict.keys()
    if missing and all(name.startswith('decoder.layers.') for name in missing):
        refuse_another_variant(shapes(state_dict), expected)


def _fit_entries(
    entries: Entries,
    expected: Shapes,
    fit: Callable[[str, Tensor, Shape], tuple[Tensor, str] | None],
    report: LoadReport,
) -> None:
    """Fit what has another shape than the model's, in place, and fill the report."""
    for name, value in list(entries.items()):
        before, after = tuple(value.shape), expected.get(name)
        if after is None or before == after:
            continue
        how = ''
        if len(before) == len(after):
            value, how = fit(name, value, after) or (value, '')
        if value.shape != after:
            raise CheckpointError(
                f'The checkpoint does not fit the model: {name} has the shape '
                f'{before}, the model needs {after}; use the config that it was '
                'trained with, or a checkpoint of a model of this size.'
            )
        entries[name] = value
        report.reshaped.append(Reshaped(name, before, after, how))
    report.missing = [name for name in expected if name not in entries]
    report.unexpected = [name for name in entries if name not in expected]


def _fit_head(
    name: str, value: Tensor, shape: Shape, class_names: Sequence[str] | None
) -> tuple[Tensor, str]:
    """Class layers and the encoder heads, which are stacked by group."""
    notes = []
    axis = int(name.startswith('query_selection.'))
    if axis and len(value) > shape[0]:
        value = value[: shape[0]]
        notes.append(f'first {shape[0]} groups')
    if '.fc_cls.' in name and value.shape[axis] != shape[axis]:
        rows, how = adapt.choose_class_rows(value.shape[axis], shape[axis], class_names)
        value = value.index_select(axis, torch.tensor(rows, device=value.device))
        notes.append(how)
    return value, ', '.join(notes)


def _fit_vit_entry(name: str, value: Tensor, shape: Shape) -> tuple[Tensor, str] | None:
    if name == 'pos_embed':
        return adapt.fit_positions(value, shape), 'position table resized'
    if name == 'patch_embed.weight':
        return adapt.fit_patch_kernel(value, shape), 'patch kernel resampled'
    return None


def _settle_unused_vit_entries(entries: Entries, expected: Shapes, prefix: str) -> None:
    """Drop blocks that the backbone never runs; provide the mask token, never used.

    Both are no loss and no gain, so that the report is silent about them.
    """
    blocks = prefix + 'blocks.'
    built, found = (count_members(names, blocks) for names in (expected, entries))
    if found < built:
        raise CheckpointError(
            f'The checkpoint has a ViT of {found} blocks, the model needs {built}: use '
            'the config that it was trained with, or a file with a deeper ViT.'
        )
    never_run = tuple(f'{blocks}{index}.' for index in range(built, found))
    for name in [name for name in entries if name.startswith(never_run)]:
        del entries[name]
    mask_token = prefix + 'mask_token'
    if mask_token in expected:
        entries.setdefault(mask_token, torch.zeros(expected[mask_token]))


def _says_its_queries(entries: Entries, info: Mapping) -> bool:
    """Whether an official file says how its query table is divided.

    One number is enough, the other follows; what contradicts the table does not count.
    """
    groups, queries = entries['reference_embedding'].shape[:2]
    said = (info.get('group_detr'), info.get('num_queries'))
    return said != (None, None) and all(
        number in (None, actual)
        for number, actual in zip(said, (groups, queries), strict=True)
    )


def _describe_stranger(state_dict: Mapping[str, Tensor]) -> str:
    found = find_vit(state_dict)
    if found is not None:
        return (
            f'The checkpoint holds a {found[0]} only, not a whole RF-DETR model: load '
            "it with model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)."
        )
    return (
        f'This is no RF-DETR checkpoint: {_first_names(state_dict)}; give an official '
        'RF-DETR file or one that this package wrote.'
    )


def _first_names(state_dict: Mapping) -> str:
    names = list(state_dict)
    shown = ', '.join(names[:3])
    return f'its entries are {shown}' + (', ...' if len(names) > 3 else '')
