"""Keep what is not finite out of checkpoints."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import RuinedWeightsError


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
    # Gradients of an unfinished step are not looked at; it may still be skipped.
    learned = {
        name: checkpoint.get(name, {}) for name in ('state_dict', 'ema_state_dict')
    }
    states = checkpoint.get('optimizer', {}).get('state', {})
    learned |= {f'optimizer.state.{index}': state for index, state in states.items()}
    tensors = {
        f'{part}.{name}': tensor
        for part, entries in learned.items()
        for name, tensor in entries.items()
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
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
    return frozenset(
        name
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point() and not is_finite(buffer)
    )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a floating tensor are finite, in one pass over it."""
    return not tensor.numel() or all(map(math.isfinite, tensor.aminmax()))
