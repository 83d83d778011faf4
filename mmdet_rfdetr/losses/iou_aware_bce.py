"""IoU-aware binary cross-entropy, the classification loss of RF-DETR."""

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island
from .reduction import sum_stages


@MODELS.register_module()
class RFDETRIoUAwareBCELoss(nn.Module):
    r"""Cross-entropy whose positive target mixes confidence and overlap.

    Official behaviour with ``ia_bce_loss=True``. With p the sigmoid of a logit z
    and u the IoU of a matched pair, the target of the matched entry is
    :math:`t = \max(p^\alpha u^{1-\alpha}, 0.01)`, without gradient, and its loss
    is :math:`-t \log p - (1 - t) \log(1 - p)`. All other entries, those of
    unmatched queries included, cost :math:`-p^2 \log(1 - p)`, with gradient
    through :math:`p^2`.

    Args:
        alpha: share of the confidence in the target.
        loss_weight: weight of the loss.
    """

    def __init__(self, *, alpha: float = 0.25, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
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
        # -log(1 - p) is softplus(z).
        background = cls_scores.sigmoid().square() * F.softplus(cls_scores)
        index = (matches.images, matches.rows, labels)
        logits = cls_scores[index]
        target = logits.detach().sigmoid() ** self.alpha * ious ** (1 - self.alpha)
        matched = F.binary_cross_entropy_with_logits(
            logits, target.clamp(min=0.01), reduction='none'
        )
        sums = sum_stages(background, matches)
        sums = sums + matches.sum_by_stage(matched - background[index])
        return self.loss_weight * sums
