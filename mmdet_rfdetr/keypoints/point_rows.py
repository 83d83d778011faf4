"""Fitting checkpoints to a model with keypoints: other points, classes, or none."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..checkpoints.class_rows import CLASS_LAYER
from ..checkpoints.fit import TASK_FITS
from ..checkpoints.hooks import FORMS, Entries
from ..checkpoints.names import is_own
from ..errors import CheckpointError

HEAD = 'keypoint_head.'
ACTIVE = HEAD + 'active'
MASKS = ACTIVE, HEAD + 'decoder.class_mask'
NECK = HEAD + 'neck.'
ROWS = (
    HEAD + 'decoder.pos_embed',
    HEAD + 'initialiser.queries',
    HEAD + 'encoder_initialiser.queries',
)
"""Entries with a row for each of the Kt points."""

_UNUSED = HEAD + 'keypoint_proj.'
"""Entries of the released official file that no model has."""


def without_unused_entries(fit: Callable) -> Callable:
    """Make fitting entries one that never sees those that no model has."""

    def fit_rest(entries: Entries, own: Entries) -> Entries:
        return fit({n: x for n, x in entries.items() if not n.startswith(_UNUSED)}, own)

    return fit_rest


def fit_points(
    entries: dict[str, Tensor],
    own: Mapping[str, Tensor],
    info: dict,
    classes: Sequence[str] | None,
) -> list[str]:
    """Settle what a model with keypoints takes from a file; see ``TASK_FITS``.

    - A file with keypoints: the rows of its points are those of the class of the same
      name or, without names, of the class with points in the same place. As many as the
      model has are taken, from the first on, again and again if need be; and class rows
      follow where points are of another label.
    - A file without: the head starts anew, but its projector is a copy of the neck, and
      masks are left out.
    """
    if ACTIVE not in own or not is_own(entries):
        return []
    notes = []
    if ROWS[0] in entries:
        notes += _fit_rows(entries, own, info, classes)
    else:
        new = [x for x in own if x.startswith(HEAD) and not x.startswith(NECK)]
        entries.update((name, own[name]) for name in new)
        notes.append(f'keypoints start anew: {len(new)} entries of {HEAD[:-1]}')
        if masks := [name for name in entries if name.startswith('mask_head.')]:
            notes.append(f'masks are left out: {len(masks)} entries of mask_head')
        for name in masks:
            del entries[name]
    missing = [x for x in own if x.startswith(NECK) and x not in entries]
    for name in missing:
        entries[name] = entries.get(name.removeprefix(HEAD), own[name]).clone()
    if missing:
        notes.append(f'projector of points copied from neck: {len(missing)} entries')
    return notes


TASK_FITS.append(fit_points)
FORMS['keypoints'] = without_unused_entries


def _fit_rows(
    entries: dict[str, Tensor],
    own: Mapping[str, Tensor],
    info: dict,
    classes: Sequence[str] | None,
) -> list[str]:
    """Fit a file with keypoints: points and, where labels have moved, class rows."""
    if ACTIVE not in entries:
        entries[ACTIVE] = torch.ones(1, len(entries[ROWS[0]]), dtype=torch.bool)
    theirs, ours = (x[ACTIVE].sum(1).tolist() for x in (entries, own))
    found = {len(entries[name]) for name in ROWS}
    if found != {sum(theirs)} or found == {0}:
        raise CheckpointError(
            f'The checkpoint is damaged, it has {sum(theirs)} points by its schema '
            f'{theirs} and rows for {sorted(found)}: get the file again.'
        )
    names = _name_rows(theirs, info.get('class_names'))
    if names is not None:
        info['class_names'] = names
    entries.update((name, own[name]) for name in MASKS)
    named = names and classes
    with_points = [label for label, count in enumerate(theirs) if count]
    sources, said = {}, []
    for label in filter(ours.__getitem__, range(len(ours))):
        source = with_points[min(len(sources), len(with_points) - 1)]
        if named and classes[label] in names:
            same = names.index(classes[label])
            source = same if same in with_points else source
        sources[label] = source
        who = classes[label] if named else f'class {label}'
        said.append(f'{who} {ours[label]} of {theirs[source]} from row {source}')
    rows = [
        sum(theirs[:source]) + index % theirs[source]
        for label, source in sources.items()
        for index in range(ours[label])
    ]
    if theirs == ours and rows == [*range(sum(ours))]:
        return []
    for name in ROWS:
        entries[name] = entries[name][torch.tensor(rows)]
    notes = [f'points by schema {theirs} -> {ours}: {", ".join(said)}']
    # A class that the file lacks has points of another one, but not its class row.
    rows = {row: label for label, row in reversed(sources.items())}
    if any(row != label for row, label in rows.items()):
        notes.append('class rows follow the points; the official loader keeps them')
        if not named:
            _move_class_rows(entries, {label: row for row, label in rows.items()})
    return notes


def _name_rows(counts: list[int], names: list[str] | None) -> list[str] | None:
    """Names of the first class rows; a file may name those with points alone."""
    with_points = [label for label, count in enumerate(counts) if count]
    if not names or len(names) != len(with_points) or with_points[-1] < len(names):
        return names
    named = dict(zip(with_points, names, strict=True))
    return [named.get(label, f'background {label}') for label in range(len(counts))]


def _move_class_rows(entries: dict[str, Tensor], sources: dict[int, int]) -> None:
    """Bring the class rows of a file in the order of the model's labels."""
    count = len(entries['bbox_head.fc_cls.bias'])
    rest = [row for row in range(count) if row not in sources.values()]
    order = [sources[x] if x in sources else rest.pop(0) for x in range(count)]
    for name, value in entries.items():
        if CLASS_LAYER in name:
            axis = int(name.startswith('query_selection.'))
            entries[name] = value.index_select(axis, torch.tensor(order))
