"""What masks add to the costs of matching."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import float32_island
from .point_sampling import MaskFeatures, PointSource, TargetMasks, drawing_order


@float32_island()
def add_mask_costs(
    costs: Sequence[Tensor],
    masks: Sequence[MaskFeatures],
    targets: TargetMasks,
    objects: Tensor,
    *,
    mask_weight: float,
    dice_weight: float,
    point_ratio: int,
    points: PointSource,
) -> None:
    """Add cross-entropy and dice loss at random points that all pairs share.

    Args:
        costs: (B, n, N) of each stage, changed in place.
        masks: predicted masks of each stage.
        targets: the true masks.
        objects: (B, n) true mask of each row of the costs.
        mask_weight: weight of the cross-entropy.
        dice_weight: weight of the dice loss.
        point_ratio: cells of the predicted mask for each point.
        points: source of the points, called for each stage.
    """
    everyone = torch.arange(len(targets.planes), device=objects.device)
    for stage, name in drawing_order(len(masks)):
        height, width = masks[stage].spatial_features.shape[2:]
        count = height * width // point_ratio
        drawn = points(f'matcher/{name}', (1, count, 2), objects.device)
        true = targets.sample(drawn, everyone)[objects]
        logits = masks[stage].at_points(drawn).transpose(1, 2)

        # The cross-entropy is softplus(x) - x * y.
        entropy = F.softplus(logits).sum(1, keepdim=True) - true @ logits
        costs[stage].add_(entropy, alpha=mask_weight / count)
        probability = logits.sigmoid_()
        overlap = true @ probability
        total = true.sum(2, keepdim=True) + probability.sum(1, keepdim=True)
        dice = 1 - (2 * overlap + 1) / (total + 1)
        costs[stage].add_(dice, alpha=dice_weight)
