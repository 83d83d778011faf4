"""Classification supervised by the quality of the position."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island
from .reduction import sum_stages


@MODELS.register_module()
class RFDETRPositionSupervisedLoss(nn.Module):
    r"""Focal-style loss of IoU targets, the official ``use_position_supervised_loss``.

    The target of a matched entry is its IoU divided by the largest IoU of the
    same image and stage (plus 1e-8); the loss is
    :math:`\alpha_t |t - p|^\gamma \mathrm{BCE}(z, t)`.

    Args:
        alpha: weight of positive entries; others weigh ``1 - alpha``.
        gamma: focusing exponent.
        loss_weight: weight of the loss.
    """

    def __init__(
        self, *, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.loss_weight = loss_weight

    @float32_island()
    def forward(
        self, cls_scores: Tensor, matches: Matches, labels: Tensor, ious: Tensor
    ) -> Tensor:
        """Sum the loss over all entries of each stage.

        Args:
            cls_scores: (B, R, K) raw logits of all stages.
            matches: the pairs.
            labels: (pairs,) class of the matched object.
            ious: (pairs,) overlap of the matched boxes, without gradient.

        Returns:
            (stages,) weighted sums, not yet divided by the number of objects.
        """
        cls_scores = cls_scores.float()
        ious = matches.without_padding(ious)
        unit = matches.stages * len(cls_scores) + matches.images
        best = ious.new_zeros(len(matches.stage_sizes) * len(cls_scores))
        best = best.scatter_reduce(0, unit, ious, 'amax')
        target = torch.zeros_like(cls_scores)
        target[matches.images, matches.rows, labels] = ious / (best[unit] + 1e-8)
        entropy = F.binary_cross_entropy_with_logits(
            cls_scores, target, reduction='none'
        )
        distance = (target - cls_scores.sigmoid()).abs() ** self.gamma
        balance = torch.where(target > 0, self.alpha, 1 - self.alpha)
        return self.loss_weight * sum_stages(balance * distance * entropy, matches)
