"""Focal loss in plain PyTorch (mmdet's needs a compiled op)."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island
from .reduction import sum_stages


@MODELS.register_module()
class RFDETRSigmoidFocalLoss(nn.Module):
    r"""Sigmoid focal loss of one-hot targets (Lin et al., 2017).

    Official behaviour when the three other classification losses are off:
    :math:`\alpha_t (1 - p_t)^\gamma \mathrm{BCE}`.

    Args:
        alpha: weight of positive entries; negative ones weigh ``1 - alpha``.
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
            ious: (pairs,) only their shape is used here.

        Returns:
            (stages,) weighted sums, not yet divided by the number of objects.
        """
        cls_scores = cls_scores.float()
        target = torch.zeros_like(cls_scores)
        ones = matches.without_padding(torch.ones_like(ious))
        target[matches.images, matches.rows, labels] = ones
        entropy = F.binary_cross_entropy_with_logits(
            cls_scores, target, reduction='none'
        )
        missing = (target - cls_scores.sigmoid()).abs() ** self.gamma
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        return self.loss_weight * sum_stages(balance * missing * entropy, matches)
