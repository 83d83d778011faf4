"""Classification losses: sums over all queries and classes of each stage."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..matching import Matches
from ..precision import float32_island


@MODELS.register_module()
class RFDETRIoUAwareBCELoss(nn.Module):
    r"""Cross-entropy whose positive target mixes confidence and overlap.

    Official behaviour with ``ia_bce_loss=True``, and the loss of RF-DETR. With p the
    sigmoid of a logit z and u the IoU of a matched pair, the target of the matched
    entry is :math:`t = \max(p^\alpha u^{1-\alpha}, 0.01)`, without gradient, and its
    loss is :math:`-t \log p - (1 - t) \log(1 - p)`. All other entries, those of
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
        # -log(1 - p) is softplus(z).
        background = cls_scores.sigmoid().square() * F.softplus(cls_scores)
        index = (matches.images, matches.rows, labels)
        logits = cls_scores[index]
        target = logits.detach().sigmoid() ** self.alpha * ious ** (1 - self.alpha)
        matched = F.binary_cross_entropy_with_logits(
            logits, target.clamp(min=0.01), reduction='none'
        )
        sums = matches.sum_rows(background)
        sums = sums + matches.sum_by_stage(matched - background[index])
        return self.loss_weight * sums


class FocalLoss(nn.Module):
    """Cross-entropy of every entry with a target, weighted by how wrong it is.

    Targets are 0 but where a query is matched.

    Args:
        alpha: balance of positive and negative entries.
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
        """Sum the loss; see :meth:`RFDETRIoUAwareBCELoss.forward`."""
        target = torch.zeros_like(cls_scores)
        matched = self.matched_targets(matches.counted(ious), matches)
        target[matches.images, matches.rows, labels] = matched
        entropy = F.binary_cross_entropy_with_logits(
            cls_scores, target, reduction='none'
        )
        weights = self.weights(cls_scores.sigmoid(), target)
        return self.loss_weight * matches.sum_rows(weights * entropy)

    def matched_targets(self, ious: Tensor, matches: Matches) -> Tensor:
        """Targets (pairs,) of the matched entries, 0 where the object is padding.

        Args:
            ious: (pairs,) overlap of the matched boxes, 0 for padding.
            matches: the pairs.
        """
        raise NotImplementedError

    def weights(self, probability: Tensor, target: Tensor) -> Tensor:
        """Weights (B, R, K) of the entries."""
        raise NotImplementedError


@MODELS.register_module()
class RFDETRSigmoidFocalLoss(FocalLoss):
    r"""Sigmoid focal loss of one-hot targets (Lin et al., 2017), in plain PyTorch.

    Official behaviour when the three other classification losses are off:
    :math:`\alpha_t (1 - p_t)^\gamma \mathrm{BCE}`. Negative entries weigh
    ``1 - alpha``. (mmdet's needs a compiled op.)
    """

    def matched_targets(self, ious: Tensor, matches: Matches) -> Tensor:
        """Targets (pairs,) of the matched entries."""
        return matches.counted(torch.ones_like(ious))

    def weights(self, probability: Tensor, target: Tensor) -> Tensor:
        """Weights (B, R, K) of the entries."""
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        return balance * (target - probability).abs() ** self.gamma


@MODELS.register_module()
class RFDETRVarifocalLoss(FocalLoss):
    r"""Varifocal loss (Zhang et al., 2021), the official ``use_varifocal_loss``.

    A matched entry has the IoU of its pair as target and as weight. Every other
    entry has target 0 and weight :math:`(1 - \alpha) p^\gamma`, with gradient.
    """

    def matched_targets(self, ious: Tensor, matches: Matches) -> Tensor:
        """Targets (pairs,) of the matched entries."""
        return ious

    def weights(self, probability: Tensor, target: Tensor) -> Tensor:
        """Weights (B, R, K) of the entries."""
        background = (1 - self.alpha) * probability**self.gamma
        return torch.where(target > 0, target, background)


@MODELS.register_module()
class RFDETRPositionSupervisedLoss(FocalLoss):
    r"""Focal-style loss of IoU targets, the official ``use_position_supervised_loss``.

    The target of a matched entry is its IoU divided by the largest IoU of the
    same image and stage (plus 1e-8); the loss is
    :math:`\alpha_t |t - p|^\gamma \mathrm{BCE}(z, t)`. Entries without a target
    weigh ``1 - alpha``.
    """

    def matched_targets(self, ious: Tensor, matches: Matches) -> Tensor:
        """Targets (pairs,) of the matched entries."""
        images = len(matches.pair_counts[0])
        unit = matches.stages * images + matches.images
        best = ious.new_zeros(len(matches.stage_sizes) * images)
        best = best.scatter_reduce(0, unit, ious, 'amax')
        return ious / (best[unit] + 1e-8)

    def weights(self, probability: Tensor, target: Tensor) -> Tensor:
        """Weights (B, R, K) of the entries."""
        balance = torch.where(target > 0, self.alpha, 1 - self.alpha)
        return balance * (target - probability).abs() ** self.gamma
