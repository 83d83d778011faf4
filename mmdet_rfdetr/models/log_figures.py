"""How wrong the predictions are, in numbers for the log that are no losses."""

import torch
from torch import Tensor

from ..matching import Matches, Stages, Targets
from ..precision import float32_island


class Losses(dict):
    """Loss terms by name, whose sum is the loss, and what the log says beside them.

    Attributes:
        figures: numbers for the log by name, see :func:`prediction_errors`.
        non_finite_costs: whether a cost of the matching was not finite; a tensor where
            the host has not read it.
    """

    def __init__(
        self, terms: dict, figures: dict[str, Tensor], non_finite_costs: Tensor | bool
    ) -> None:
        super().__init__(terms)
        self.figures = figures
        self.non_finite_costs = non_finite_costs


@torch.no_grad()
@float32_island()
def prediction_errors(
    stages: Stages, labels: Tensor, matches: Matches, targets: Targets
) -> dict[str, Tensor]:
    """Count wrong classes and superfluous detections, as the official package does.

    Args:
        stages: outputs of the network.
        labels: (pairs,) true class of each matched pair.
        matches: the pairs.
        targets: the objects.

    Returns:
        ``class_error``, percent of the last layer's pairs whose best class is wrong
        (100 without pairs), and ``cardinality_error`` of each stage, the mean over
        images of how many queries with a score above 0.5 there are too many or too few.
        In training the queries of all groups count.
    """
    predicted = stages.logits[matches.images, matches.rows].argmax(-1)
    of_last_layer = matches.counted(matches.stages == stages.last)
    right = ((predicted == labels) & of_last_layer).sum()
    errors = dict(class_error=100 - 100 * right / of_last_layer.sum().clamp(min=1))

    # A score above 0.5 is a logit above 0.
    confident = (stages.logits.amax(-1) > 0).split(stages.sizes, dim=1)
    counts = targets.of_images()
    for prefix, stage in zip(stages.prefixes, confident, strict=True):
        error = (stage.sum(1) - counts).abs().float().mean()
        errors[f'{prefix}cardinality_error'] = error
    return errors
