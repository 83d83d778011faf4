"""Keep what is not finite out of checkpoints."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..errors import RuinedWeightsError

# What goes on from a checkpoint: the weights, their average, and the optimizer's state.
# Gradients of an unfinished step are not among them; the step may still be skipped.
_LEARNED = ('state_dict', 'ema_state_dict', 'optimizer')


def require_finite(checkpoint: Mapping, exempt: frozenset[str]) -> None:
    """Refuse a checkpoint that nothing could go on from.

    A step can ruin weights although its loss and gradients are finite, and the next
    loss shows it too late if a checkpoint is written in between.

    Args:
        checkpoint: what is about to be written.
        exempt: buffers that are not finite on purpose, such as the masks of an
            attention.

    Raises:
        RuinedWeightsError: naming what is not finite.
    """
    tensors = {
        name: tensor
        for key in _LEARNED
        for name, tensor in _floating(checkpoint.get(key), key)
    }
    ruined = [
        name
        for name, tensor in tensors.items()
        if not is_finite(tensor)
        and name.partition('.')[2].removeprefix('module.') not in exempt
    ]
    if ruined:
        raise RuinedWeightsError(
            f'{len(ruined)} of {len(tensors)} tensors of the model, its average and '
            f'the optimizer are not finite any more, the first is {ruined[0]}: no '
            'checkpoint is written.'
        )


def infinite_buffers(model: nn.Module) -> frozenset[str]:
    """Names of the buffers of a model that are not finite."""
    buffers = dict(model.named_buffers())
    return frozenset(
        name
        for name, buffer in buffers.items()
        if buffer.is_floating_point() and not is_finite(buffer)
    )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a floating tensor are finite, in one pass over it."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _floating(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """The floating tensors in nested dictionaries and lists, with their paths."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _floating(part, f'{path}.{key}')
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _floating(part, f'{path}.{number}')
