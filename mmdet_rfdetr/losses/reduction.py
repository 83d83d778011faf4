"""Sums over the stacked outputs of all stages."""

import torch
from torch import Tensor

from ..matching import Matches


def sum_stages(values: Tensor, matches: Matches) -> Tensor:
    """Sum (B, R, K) over images, queries and classes of each stage: (stages,)."""
    rows = values.sum((0, 2))
    return torch.stack([part.sum() for part in rows.split(matches.stage_sizes)])
