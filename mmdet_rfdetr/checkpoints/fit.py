"""Fitting a state dict to a model: its names, its sizes, and what is left.

The rules are those of the official loader, with one addition: 91 rows for COCO's
category ids become the 80 rows of MMDetection's labels.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..class_names import ClassMatch
from ..errors import CheckpointError, list_names
from ..ops.resampling import resize_position_table
from .class_rows import CLASS_LAYER, choose_rows, describe, match_rows, take_rows
from .names import count_members, from_official, is_official, is_own
from .report import LoadReport, Reshaped
from .variants import refuse_another_variant

Entries = Mapping[str, Tensor]
Fit = Callable[[str, Tensor, Tensor], tuple[Tensor, str]]
Fitted = tuple[Entries, LoadReport | None]

QUERY_TABLES = ('reference_embedding', 'query_embedding')


def fit_model(
    state_dict: Entries,
    own: Entries,
    info: Mapping,
    classes: Sequence[str] | None = None,
) -> Fitted:
    """Fit a state dict, official or of this package, to an RF-DETR model.

    Args:
        state_dict: Names to tensors.
        own: State dict of the model: its sizes, and rows for classes that the file
            does not have.
        info: What the file says about itself: ``num_queries``, ``group_detr`` and
            ``class_names``, as far as it does.
        classes: Class names of the model, None if it does not know them. Where both
            are named, class rows are taken by name, otherwise by position.

    Returns:
        Entries under the model's names, and a report of what was changed; None where
        all entries are the model's own and stay as they are.

    Raises:
        CheckpointError: it is no RF-DETR checkpoint, or one of another variant, or
            its sizes cannot be fitted.
    """
    official = is_official(state_dict)
    entries = from_official(state_dict) if official else OrderedDict(state_dict)
    info = dict(info)
    notes = [said for fit in TASK_FITS for said in fit(entries, own, info, classes)]
    match = _match_classes(entries, own, info, classes)
    if not official and not notes and match is None and fits_exactly(entries, own):
        _refuse_fewer_layers(entries, own)
        return entries, None
    if not official and not is_own(state_dict):
        raise CheckpointError(
            'This is no RF-DETR checkpoint, its entries are '
            f'{list_names([*state_dict])}: give an official RF-DETR file or one that '
            'this package wrote.'
        )
    title = f'{"Official " * official}RF-DETR checkpoint'
    report = LoadReport(title, len(state_dict))
    refuse_another_variant(entries, own, info)
    settle_unused_vit_entries(entries, own, 'backbone.')
    keep_groups = not official or _says_its_queries(entries, info)
    if match is not None:
        notes += describe(match, classes)
    report.notes = notes

    def fit(name: str, value: Tensor, like: Tensor) -> tuple[Tensor, str]:
        if name in QUERY_TABLES:
            return fit_query_table(value, like.shape, keep_groups=keep_groups)
        if name.startswith(('bbox_head.fc_cls.', 'query_selection.')):
            return _fit_head(name, value, like, match, info.get('class_names'))
        return fit_vit_entry(name.removeprefix('backbone.'), value, like)

    moved = [name for name in entries if match is not None and CLASS_LAYER in name]
    fit_entries(entries, own, fit, report, moved)
    return entries, report


TASK_FITS: list[Callable[..., Sequence[str]]] = []
"""What settles the entries of a task, before the others are fitted.

Called with the entries of a file under the model's names, which it may change, the
state dict of the model, ``info`` of the file, which it may change, and the class names
of the model or None. What it returns is said in the table; nothing if all was right.
"""


def fit_query_table(
    table: Tensor, shape: Sequence[int], *, keep_groups: bool
) -> tuple[Tensor, str]:
    """Take the queries of a smaller model from a table of learned queries.

    Args:
        table: (G, Q, D) of the file.
        shape: (G, Q, D) of the model.
        keep_groups: Take the first queries of each of the first groups. False takes
            the first rows of all, as the official loader does with a file that does
            not say how many queries it was trained with; only the first group, the
            one used for prediction, then surely holds what it held before.

    Returns:
        The table of the model, and a few words on it.

    Raises:
        CheckpointError: the file has too few groups or queries.
    """
    groups, queries = shape[:2]
    file_groups, file_queries = table.shape[:2]
    settings = (('groups', groups, file_groups), ('queries', queries, file_queries))
    lower = [f'model.num_{name}={own}' for name, ours, own in settings if ours > own]
    if lower:
        raise CheckpointError(
            f'The checkpoint has {file_groups} groups of {file_queries} queries, too '
            f'few for the model with {groups} groups of {queries}: set '
            f'{" and ".join(lower)}.'
        )
    if keep_groups:
        return table[:groups, :queries], 'first queries of each group'
    rows = table.flatten(0, 1)[: groups * queries]
    return rows.unflatten(0, (groups, queries)), 'first rows'


def fit_entries(
    entries: OrderedDict[str, Tensor],
    own: Entries,
    fit: Fit,
    report: LoadReport,
    moved: Sequence[str] = (),
) -> None:
    """Fit what has another shape than the model's, in place, and fill the report.

    Args:
        entries: Of the file, under the model's names.
        own: State dict of the model.
        fit: Fits one entry.
        report: What is filled.
        moved: Names of entries to fit whatever their shape.
    """
    for name, value in list(entries.items()):
        like = own.get(name)
        if like is None or (value.shape == like.shape and name not in moved):
            continue
        fitted, how = value, ''
        if value.ndim == like.ndim:
            fitted, how = fit(name, value, like)
        if fitted.shape != like.shape:
            raise CheckpointError(
                f'The checkpoint does not fit the model: {name} has the shape '
                f'{tuple(value.shape)}, the model needs {tuple(like.shape)}; use the '
                'config that it was trained with, or a checkpoint of a model of this '
                'size.'
            )
        entries[name] = fitted
        report.reshaped.append(Reshaped(name, value.shape, like.shape, how))
    report.missing = [name for name in own if name not in entries]
    report.unexpected = [name for name in entries if name not in own]


def _fit_head(
    name: str,
    value: Tensor,
    like: Tensor,
    match: ClassMatch | None,
    class_names: Sequence[str] | None,
) -> tuple[Tensor, str]:
    """Class layers and the encoder heads, which are stacked by group."""
    notes = []
    axis = int(name.startswith('query_selection.'))
    if axis and len(value) > len(like):
        value = value[: len(like)]
        notes.append(f'first {len(like)} groups')
    alike = value.select(axis, 0).shape == like.select(axis, 0).shape
    if CLASS_LAYER in name and alike:
        rows, how = choose_rows(value.shape[axis], like.shape[axis], class_names)
        if match is not None:
            rows, how = match.positions, 'class rows by name'
        if match is not None or value.shape != like.shape:
            value = take_rows(value, like, rows, axis)
            notes.append(how)
    return value, ', '.join(notes)


def fit_vit_entry(name: str, value: Tensor, like: Tensor) -> tuple[Tensor, str]:
    """Fit an entry of the ViT, under its name in the backbone; see ``VIT_FITS``."""
    fit = VIT_FITS.get(name)
    return (value, '') if fit is None else fit(value, like.shape)


def _resize_table(table: Tensor, shape: Sequence[int]) -> tuple[Tensor, str]:
    side = math.isqrt(shape[1] - 1)
    return resize_position_table(table, (side, side)), 'position table resized'


VIT_FITS: dict[str, Callable[[Tensor, Sequence[int]], tuple[Tensor, str]]] = {
    'pos_embed': _resize_table
}
"""By the name of an entry of the ViT, what gives it the shape of the model's."""


def _match_classes(
    entries: Entries, own: Entries, info: Mapping, classes: Sequence[str] | None
) -> ClassMatch | None:
    """Find class rows by name, None if these are the same as by position."""
    name = 'bbox_head.fc_cls.weight'
    if name not in entries or not classes or len(classes) != len(own[name]):
        return None
    return match_rows(len(entries[name]), info.get('class_names'), classes)


def fits_exactly(entries: Entries, own: Entries) -> bool:
    """Whether a model can take all entries as they are; some may be missing."""
    return all(
        name in own and value.shape == own[name].shape
        for name, value in entries.items()
    )


def _refuse_fewer_layers(entries: Entries, own: Entries) -> None:
    """Stop if whole weights of this package are those of a smaller variant.

    All that they hold fits, and the layers that they lack would stay random. Parts of
    a model are left alone: whoever loads them knows. So is a model without masks that
    gets a mask head, since that is how masks are added to what was trained.
    """
    missing = {name for name in own if not name.startswith('mask_head.')}
    missing -= entries.keys()
    if missing and all(name.startswith('decoder.layers.') for name in missing):
        refuse_another_variant(entries, own, {})


def settle_unused_vit_entries(
    entries: OrderedDict[str, Tensor], own: Entries, prefix: str
) -> None:
    """Drop blocks that the backbone never runs; provide the mask token, never used.

    Both are no loss and no gain, so that the report is silent about them.
    """
    blocks = prefix + 'blocks.'
    built, found = (count_members(names, blocks) for names in (own, entries))
    if found < built:
        raise CheckpointError(
            f'The checkpoint has a ViT of {found} blocks, the model needs {built}: use '
            'the config that it was trained with, or a file with a deeper ViT.'
        )
    never_run = tuple(f'{blocks}{index}.' for index in range(built, found))
    for name in [name for name in entries if name.startswith(never_run)]:
        del entries[name]
    mask_token = prefix + 'mask_token'
    if mask_token in own:
        entries.setdefault(mask_token, torch.zeros_like(own[mask_token]))


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
