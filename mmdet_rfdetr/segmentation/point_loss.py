"""Mask losses of matched queries, at points where the mask is in doubt."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island
from .point_sampling import (
    MaskFeatures,
    PointSource,
    TargetMasks,
    drawing_order,
    random_points,
    sample_bilinear,
)

OVERSAMPLING = 3
"""Points looked at for each point that is used."""
UNCERTAIN_SHARE = 0.75
"""Share of the points taken where the mask is least certain."""


@MODELS.register_module()
class RFDETRPointMaskLoss(nn.Module):
    r"""Cross-entropy and dice loss at sampled points of matched masks.

    The points are those of PointRend: three times as many as needed are drawn, the
    three quarters of P where the logit is nearest to zero are kept, and the last
    quarter is drawn anew. With logits x and true values y at the P points of a
    pair, the terms are the mean cross-entropy and
    :math:`1 - (2 \sum \sigma(x) y + 1) / (\sum \sigma(x) + \sum y + 1)`.

    Args:
        mask_weight: weight of the cross-entropy.
        dice_weight: weight of the dice loss.
        point_ratio: cells of the predicted mask for each point.
        points: source of the random points, called for each stage with the names
            ``loss/<stage>/over`` (pairs, 3P, 2) and ``loss/<stage>/rest``
            (pairs, P / 4, 2).
    """

    def __init__(
        self,
        *,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        point_ratio: int = 16,
        points: PointSource = random_points,
    ) -> None:
        super().__init__()
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.point_ratio = point_ratio
        self.points = points

    @float32_island()
    def forward(
        self,
        mask_preds: list[MaskFeatures],
        targets: TargetMasks,
        matches: Matches,
    ) -> dict[str, Tensor]:
        """Sum the losses over the pairs of each stage.

        Args:
            mask_preds: predicted masks of each stage.
            targets: the true masks.
            matches: the pairs.

        Returns:
            ``loss_mask`` and ``loss_dice``, (stages,) each, weighted, not yet
            divided by the number of objects.
        """
        sums = [None] * len(mask_preds)
        for stage, name in drawing_order(len(mask_preds)):
            queries, objects = pairs_of_stage(matches, stage)
            logits = mask_preds[stage].of_pairs(queries, matches.pair_counts[stage])
            sums[stage] = self._terms(logits, targets, objects, name)
        entropy, dice = torch.stack(sums, dim=1)
        return dict(
            loss_mask=self.mask_weight * entropy, loss_dice=self.dice_weight * dice
        )

    def _terms(
        self, logits: Tensor, targets: TargetMasks, objects: Tensor, name: str
    ) -> Tensor:
        """Sum cross-entropy and dice over pairs (pairs, h, w) of a stage: (2,)."""
        if not len(logits):
            return logits.sum().expand(2)
        logits = logits[:, None]
        with torch.no_grad():
            points = self._choose_points(logits, name)
            true = targets.sample(points, objects)
        logits = sample_bilinear(logits, points)[:, 0]
        entropy = F.binary_cross_entropy_with_logits(logits, true, reduction='none')
        probability = logits.sigmoid()
        overlap = (probability * true).sum(1)
        total = probability.sum(1) + true.sum(1)
        dice = 1 - (2 * overlap + 1) / (total + 1)
        return torch.stack((entropy.mean(1).sum(), dice.sum()))

    def _choose_points(self, logits: Tensor, name: str) -> Tensor:
        """Points (pairs, P, 2) for logits (pairs, 1, h, w)."""
        pairs, _, height, width = logits.shape
        count = max(height, height * width // self.point_ratio)
        uncertain = int(UNCERTAIN_SHARE * count)
        candidates = self.points(
            f'loss/{name}/over', (pairs, OVERSAMPLING * count, 2), logits.device
        )
        doubt = -sample_bilinear(logits, candidates)[:, 0].abs()
        chosen = doubt.topk(uncertain, dim=1).indices[..., None].expand(-1, -1, 2)
        rest = self.points(
            f'loss/{name}/rest', (pairs, count - uncertain, 2), logits.device
        )
        return torch.cat((candidates.gather(1, chosen), rest), dim=1)


def pairs_of_stage(matches: Matches, stage: int) -> tuple[Tensor, Tensor]:
    """Pairs of a stage: queries (n,) in [0, N) and objects (n,) in [0, T)."""
    start = sum(map(sum, matches.pair_counts[:stage]))
    pairs = slice(start, start + sum(matches.pair_counts[stage]))
    first = sum(matches.stage_sizes[:stage])
    return matches.rows[pairs] - first, matches.targets[pairs]
