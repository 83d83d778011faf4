"""Outputs of several stages with matches, and a slow sum over their entries."""

import torch
from mmdet.registry import MODELS

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


def run_loss(loss, logits, pairs=PAIRS):
    """The loss of each stage."""
    labels = torch.tensor([pair[3] for pair in pairs], dtype=torch.long)
    overlaps = torch.tensor([pair[4] for pair in pairs])
    return loss(logits, make_matches(pairs), labels, overlaps)


def assert_equals_slow_sum(config, entry_loss):
    """Compare a loss and its gradient with a sum over single entries in float64.

    Args:
        config: of the loss.
        entry_loss: called with the logit, the overlap of the entry (None if it is
            not matched), and the largest overlap of image and stage.
    """
    torch.manual_seed(0)
    logits = 3 * torch.randn(BATCH, sum(STAGE_SIZES), CLASSES)
    fast = logits.clone().requires_grad_()
    sums = run_loss(MODELS.build(config), fast)

    slow = logits.double().requires_grad_()
    expected = []
    start = 0
    for stage, size in enumerate(STAGE_SIZES):
        total = 0
        for image in range(BATCH):
            overlaps = {
                pair[2:4]: pair[4] for pair in PAIRS if pair[:2] == (stage, image)
            }
            best = max(overlaps.values(), default=0)
            for query in range(size):
                for label in range(CLASSES):
                    total = total + entry_loss(
                        slow[image, start + query, label],
                        overlaps.get((query, label)),
                        best,
                    )
        expected.append(total)
        start += size
    expected = torch.stack(expected)
    torch.testing.assert_close(sums, expected.float(), rtol=1e-5, atol=0)

    # Other weights for each stage, so that a gradient in the wrong place shows.
    weights = torch.tensor([1.0, -2.0, 0.5])
    (sums * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), rtol=1e-4, atol=1e-6)


def assert_weight_and_no_pairs(config):
    """Check ``loss_weight``, and a batch in which nothing is matched."""
    torch.manual_seed(0)
    logits = torch.randn(BATCH, sum(STAGE_SIZES), CLASSES, requires_grad=True)
    once = run_loss(MODELS.build(config), logits)
    thrice = run_loss(MODELS.build(dict(config, loss_weight=3.0)), logits)
    torch.testing.assert_close(thrice, 3 * once)
    nothing = run_loss(MODELS.build(config), logits, pairs=())
    nothing.sum().backward()
    assert (nothing > 0).all() and (logits.grad != 0).all()
