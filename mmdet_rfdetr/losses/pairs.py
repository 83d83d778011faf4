"""Losses of MMDetection, of matched pairs."""

from torch import Tensor, nn

from ..errors import SettingError
from ..matching import Matches


def sum_pairs(
    loss: nn.Module, predicted: Tensor, true: Tensor, matches: Matches
) -> Tensor:
    """Sum a loss over the pairs of each stage.

    Args:
        loss: of MMDetection, or one that is called like it.
        predicted: (pairs, ...).
        true: (pairs, ...), the same shape.
        matches: the pairs.

    Returns:
        (stages,).

    Raises:
        SettingError: if the loss does not come pair by pair.
    """
    count = len(predicted)
    if not count:
        # mmdet's losses of nothing lose their shape; this stays connected.
        return matches.sum_by_stage(predicted.flatten())
    pairs = loss(predicted, true, reduction_override='none')
    if pairs.shape[:1] != (count,):
        raise SettingError(
            f'{type(loss).__name__} has to return the loss of each of {count} pairs '
            f"for reduction_override='none', and returns {tuple(pairs.shape)}."
        )
    return matches.sum_by_stage(pairs.view(count, -1).sum(-1))
