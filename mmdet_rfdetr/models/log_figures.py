"""How wrong the predictions are, in numbers for the log that are no losses."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..matching.assigner import Matches, Targets
from ..precision import float32_island


@torch.no_grad()
@float32_island()
def prediction_errors(
    cls_scores: Tensor,
    labels: Tensor,
    matches: Matches,
    targets: Targets,
    prefixes: Sequence[str],
) -> dict[str, Tensor]:
    """Count wrong classes and superfluous detections, as the official package does.

    Args:
        cls_scores: (B, R, K) raw logits of all stages.
        labels: (pairs,) true class of each matched pair.
        matches: the pairs.
        targets: the objects.
        prefixes: of the names of the stages.

    Returns:
        ``class_error``, percent of the last layer's pairs whose best class is wrong
        (100 without pairs), and ``cardinality_error`` of each stage, the mean over
        images of how many queries with a score above 0.5 there are too many or too few.
        In training the queries of all groups count.
    """
    last_layer = len(matches.stage_sizes) - 2
    predicted = cls_scores[matches.images, matches.rows].argmax(-1)
    of_last_layer = matches.without_padding(matches.stages == last_layer)
    right = ((predicted == labels) & of_last_layer).sum()
    errors = dict(class_error=100 - 100 * right / of_last_layer.sum().clamp(min=1))

    # A score above 0.5 is a logit above 0.
    confident = (cls_scores.amax(-1) > 0).split(matches.stage_sizes, dim=1)
    counts = targets.of_images()
    for prefix, stage in zip(prefixes, confident, strict=True):
        error = (stage.sum(1) - counts).abs().float().mean()
        errors[f'{prefix}cardinality_error'] = error
    return errors
