"""Two-stage proposals: which memory tokens become reference boxes."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops.boxes import apply_deltas
from ..ops.constants import constant
from ..precision import float32_island
from .memory import Memory
from .relu_mlp import ReLUMLP

CLASS_PRIOR = 0.01
"""Probability that every class output starts with."""


class GroupLinear(nn.Module):
    """One linear layer for each of G groups, computed as a single product.

    Args:
        num_groups: G.
        in_features: width of the input.
        out_features: width of the output.
    """

    def __init__(self, num_groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_groups, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_groups, out_features))
        bound = in_features**-0.5
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.uniform_(self.bias, -bound, bound)

    @torch.no_grad()
    def copy_to_all_groups(self, linear: nn.Linear) -> None:
        """Start every group from the same layer."""
        self.weight.copy_(linear.weight.expand_as(self.weight))
        self.bias.copy_(linear.bias.expand_as(self.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers of the first g groups.

        Args:
            x: (g, rows, in_features), g at most G.

        Returns:
            (g, rows, out_features).
        """
        groups = x.shape[0]
        return torch.baddbmm(
            self.bias[:groups, None], x, self.weight[:groups].transpose(1, 2)
        )


class GroupLayerNorm(nn.Module):
    """One layer norm for each of G groups."""

    def __init__(self, num_groups: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_groups, width))
        self.bias = nn.Parameter(torch.zeros(num_groups, width))

    def forward(self, x: Tensor) -> Tensor:
        """(g, rows, width) to the same shape, by the norms of the first g groups."""
        groups, width = x.shape[0], x.shape[-1:]
        if groups == 1:
            return F.layer_norm(x, width, self.weight[0], self.bias[0])
        normed = F.layer_norm(x, width)
        return torch.addcmul(
            self.bias[:groups, None], normed, self.weight[:groups, None]
        )


@float32_island()
def make_proposals(
    spatial_shapes: Sequence[tuple[int, int]], valid_sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """One square box around every memory token.

    The side of the boxes is 0.05 on the first level and doubles with each
    further one. A proposal whose centre or size is not strictly between 0.01
    and 0.99 is invalid: that happens to the outermost ring of cells of grids with
    50 cells or more.

    Args:
        spatial_shapes: (h, w) of each level.
        valid_sizes: (B, L, 2) rows and columns of each level that hold image and
            not padding.

    Returns:
        Tuple of proposals (B, S, 4) cxcywh and their validity (B, S), on the device
        of the sizes.
    """
    device = valid_sizes.device
    proposals = []
    for level, (height, width) in enumerate(spatial_shapes):
        y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
        x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        cells = torch.cartesian_prod(y, x) / valid_sizes[:, level, None]
        centres = cells.flip(-1)
        sizes = torch.full_like(centres, 0.05 * 2**level)
        proposals.append(torch.cat((centres, sizes), dim=-1))
    proposals = torch.cat(proposals, dim=1)
    valid = ((proposals > 0.01) & (proposals < 0.99)).all(-1)
    return proposals, valid


@constant
def unpadded_proposals(
    spatial_shapes: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """:func:`make_proposals` of images without padding, made once for each size.

    Returns:
        Tuple of proposals (1, S, 4) and their validity (1, S), None if all are valid.
    """
    proposals, valid = make_proposals(spatial_shapes, torch.tensor([spatial_shapes]))
    # Known from the sizes: a graph that is being exported cannot be asked.
    all_valid = max(map(max, spatial_shapes)) < 50 and len(spatial_shapes) < 6
    return proposals.to(device), None if all_valid else valid.to(device)


def proposals_of(memory: Memory) -> tuple[Tensor, Tensor | None]:
    """Proposals (B or 1, S, 4), and which are valid (B or 1, S); None if all are."""
    if memory.valid_sizes is None:
        return unpadded_proposals(memory.shapes, memory.tokens.device)
    proposals, valid = make_proposals(memory.shapes, memory.valid_sizes)
    return proposals, valid & ~memory.padding


class QuerySelection(BaseModule):
    """Score every memory token and turn the best ones into reference boxes.

    Each group has heads of its own. Invalid and padded tokens are scored as
    zero rows with a zero box; they are not left out of the competition, since the
    official package does not leave them out.

    Args:
        embed_dims: width D.
        num_classes: K.
        num_groups: G.
    """

    def __init__(self, *, embed_dims: int, num_classes: int, num_groups: int) -> None:
        super().__init__()
        self.fc = GroupLinear(num_groups, embed_dims, embed_dims)
        self.norm = GroupLayerNorm(num_groups, embed_dims)
        self.fc_cls = GroupLinear(num_groups, embed_dims, num_classes)
        self.fc_reg = ReLUMLP(
            GroupLinear(num_groups, embed_dims, out)
            for out in (embed_dims, embed_dims, 4)
        )

    def copy_heads(self, fc_cls: nn.Linear, fc_reg: Sequence[nn.Linear]) -> None:
        """Start the heads of every group from the decoder's heads."""
        self.fc_cls.copy_to_all_groups(fc_cls)
        for group_layer, layer in zip(self.fc_reg, fc_reg, strict=True):
            group_layer.copy_to_all_groups(layer)

    def forward(
        self,
        memory: Tensor,
        proposals: Tensor,
        valid: Tensor | None,
        *,
        num_groups: int,
        num_queries: int,
    ) -> dict[str, Tensor]:
        """Select the ``k = min(num_queries, S)`` best tokens of each group.

        Args:
            memory: (B, S, D).
            proposals: (B or 1, S, 4) cxcywh.
            valid: (B or 1, S), False for padding and invalid proposals; None if
                there are none.
            num_groups: use the heads of the first so many groups.
            num_queries: most tokens to select.

        Returns:
            Dict of ``cls_scores`` (B, g*k, K) raw logits, ``bbox_preds``
            (B, g*k, 4) cxcywh, ``tokens`` (B, g*k, D) and ``indices``
            (g, B, k) by descending score, groups in order.
        """
        batch, count, width = memory.shape
        if valid is not None:
            memory = memory.masked_fill(~valid[..., None], 0)
            proposals = proposals * valid[..., None]
        with torch.no_grad():
            rows = memory.detach().reshape(1, -1, width).expand(num_groups, -1, -1)
            tokens, cls_scores = self.score(rows)
            best = cls_scores.view(num_groups, batch, count, -1).float().amax(-1)
            indices = best.topk(min(num_queries, count), dim=-1).indices
        # Rows of the selected tokens among those of all images: (g, B*k, 1).
        rows = indices + torch.arange(batch, device=memory.device)[:, None] * count
        rows = rows.flatten(1)[..., None]

        def pick(x: Tensor) -> Tensor:
            return x.gather(1, rows.expand(-1, -1, x.shape[-1]))

        if torch.is_grad_enabled():
            # Gradients reach the selected tokens alone: only these are kept for them.
            selected = memory.flatten(0, 1).index_select(0, rows.flatten())
            tokens, cls_scores = self.score(selected.view(num_groups, -1, width))
        else:
            tokens, cls_scores = pick(tokens), pick(cls_scores)
        proposals = proposals.expand(batch, -1, -1).reshape(1, -1, 4)
        proposals = pick(proposals.expand(num_groups, -1, -1))
        boxes = apply_deltas(self.fc_reg(tokens), proposals)

        def to_queries(x: Tensor) -> Tensor:
            return x.view(*indices.shape, -1).transpose(0, 1).flatten(1, 2)

        return dict(
            cls_scores=to_queries(cls_scores).float(),
            bbox_preds=to_queries(boxes),
            tokens=to_queries(tokens),
            indices=indices,
        )

    def score(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (g, rows, D) and their logits (g, rows, K) of memory (g, rows, D)."""
        tokens = self.norm(self.fc(rows))
        return tokens, self.fc_cls(tokens)
