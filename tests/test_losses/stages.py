"""Matches of several stages."""

import torch

from mmdet_rfdetr.matching import Matches

STAGE_SIZES = (6, 6, 4)
BATCH, CLASSES = 3, 5
PAIRS = (
    # stage, image, query of the stage, label, overlap
    (0, 0, 1, 2, 0.8),
    (0, 0, 5, 0, 0.05),
    (0, 2, 0, 4, 0.6),
    (1, 0, 2, 2, 0.3),
    (1, 0, 3, 0, 0.9),
    (1, 2, 4, 4, 0.0),
    (2, 0, 0, 2, 0.7),
    (2, 0, 3, 0, 1.0),
    (2, 2, 1, 4, 1e-4),
)


def make_matches(pairs=PAIRS):
    stages, images, queries, _, _ = zip(*pairs, strict=True) if pairs else [()] * 5
    starts = [sum(STAGE_SIZES[:stage]) for stage in range(len(STAGE_SIZES))]
    counts = [
        tuple(
            sum(pair[:2] == (stage, image) for pair in pairs) for image in range(BATCH)
        )
        for stage in range(len(STAGE_SIZES))
    ]
    rows = [starts[stage] + query for stage, query in zip(stages, queries, strict=True)]
    return Matches(
        stages=torch.tensor(stages, dtype=torch.long),
        images=torch.tensor(images, dtype=torch.long),
        rows=torch.tensor(rows, dtype=torch.long),
        targets=torch.zeros(len(pairs), dtype=torch.long),
        stage_sizes=STAGE_SIZES,
        pair_counts=tuple(counts),
    )
