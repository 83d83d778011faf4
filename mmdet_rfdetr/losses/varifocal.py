"""Varifocal loss with the IoU as target."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island
from .reduction import sum_stages


@MODELS.register_module()
class RFDETRVarifocalLoss(nn.Module):
    r"""Varifocal loss (Zhang et al., 2021), the official ``use_varifocal_loss``.

    A matched entry has the IoU of its pair as target and as weight. Every other
    entry has target 0 and weight :math:`(1 - \alpha) p^\gamma`, with gradient.

    Args:
        alpha: balance; background weighs ``1 - alpha``.
        gamma: focusing exponent of the background.
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
        target = torch.zeros_like(cls_scores)
        target[matches.images, matches.rows, labels] = ious
        background = (1 - self.alpha) * cls_scores.sigmoid() ** self.gamma
        weight = torch.where(target > 0, target, background)
        entropy = F.binary_cross_entropy_with_logits(
            cls_scores, target, reduction='none'
        )
        return self.loss_weight * sum_stages(weight * entropy, matches)
