"""What tells the variants of RF-DETR apart in a state dict.

Sizes that a checkpoint cannot be adapted to are compared here, so that a file of
another variant is refused with these rather than with a list of shapes.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..errors import CheckpointError
from .names import count_members

Entries = Mapping[str, Tensor]
Sizes = Mapping[str, int | str | None]

EXPLANATIONS: list[Callable[[Entries, Sizes, Mapping], str | None]] = []
"""What says of a checkpoint which variant it looks like.

Each gets its entries, its sizes, and what it says about itself.
"""


def refuse_another_variant(file: Entries, model: Entries, info: Mapping) -> None:
    """Stop if a checkpoint belongs to another network than the model.

    Args:
        file: State dict of the checkpoint, in this package's names; those that tell
            such a state dict from others must be there, see :func:`~.names.is_own`.
        model: State dict of the model.
        info: What the checkpoint says about itself.

    Raises:
        CheckpointError: it does; the message has what differs.
    """
    found, own = _sizes_of_entries(file), _sizes_of_entries(model)
    differences = [
        f'{name} {size} (model: {own[name]})'
        for name, size in found.items()
        if size != own[name]
    ]
    if not differences:
        return
    said = [text for explain in EXPLANATIONS if (text := explain(file, found, info))]
    advice = '; '.join(said) or 'use the config that it was trained with'
    raise CheckpointError(
        f'The checkpoint belongs to another variant of RF-DETR: '
        f'{", ".join(differences)}; {advice}.'
    )


def _sizes_of_entries(entries: Entries) -> Sizes:
    """What tells the variants apart, by the words for it."""
    kernel = entries.get('backbone.patch_embed.weight')  # None of another backbone
    return {
        'vit width': None if kernel is None else len(kernel),
        'patch size': None if kernel is None else kernel.shape[-1],
        'decoder layers': count_members(entries, 'decoder.layers.'),
        'decoder width': len(entries['decoder.norm.weight']),
        'levels': count_members(entries, 'neck.stages.'),
        'masks': _yes(any(name.startswith('mask_head.') for name in entries)),
        'keypoints': _yes(any('keypoint' in name for name in entries)),
    }


def _yes(value: bool) -> str:
    return 'yes' if value else 'no'
