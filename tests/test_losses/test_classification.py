"""Each loss against a sum over single entries, by its formula in plain Python."""

from functools import partial

import pytest
import torch
from mmdet.registry import MODELS

from .stages import BATCH, CLASSES, PAIRS, STAGE_SIZES, make_matches


def iou_aware_bce(logit, overlap, best, alpha=0.25):
    probability = logit.sigmoid()
    if overlap is None:
        return -(probability**2) * (-logit).sigmoid().log()
    target = max(probability.item() ** alpha * overlap ** (1 - alpha), 0.01)
    background = (1 - target) * (-logit).sigmoid().log()
    return -target * probability.log() - background


def sigmoid_focal(logit, overlap, best, alpha=0.25, gamma=2):
    probability, background = logit.sigmoid(), (-logit).sigmoid()
    if overlap is None:
        return -(1 - alpha) * probability**gamma * background.log()
    return -alpha * background**gamma * probability.log()


def varifocal(logit, overlap, best, alpha=0.25, gamma=2):
    probability, background = logit.sigmoid(), (-logit).sigmoid()
    # A pair without overlap is background, like everything that is not matched.
    if not overlap:
        return -(1 - alpha) * probability**gamma * background.log()
    entropy = overlap * probability.log() + (1 - overlap) * background.log()
    return -overlap * entropy


def position_supervised(logit, overlap, best, alpha=0.25, gamma=2):
    probability, background = logit.sigmoid(), (-logit).sigmoid()
    target = (overlap or 0) / (best + 1e-8)
    balance = alpha if target > 0 else 1 - alpha
    entropy = target * probability.log() + (1 - target) * background.log()
    return -balance * abs(target - probability) ** gamma * entropy


FORMULAS = {
    'RFDETRIoUAwareBCELoss': iou_aware_bce,
    'RFDETRSigmoidFocalLoss': sigmoid_focal,
    'RFDETRVarifocalLoss': varifocal,
    'RFDETRPositionSupervisedLoss': position_supervised,
}


def run(config, logits, pairs=PAIRS):
    """The loss of each stage."""
    labels = torch.tensor([pair[3] for pair in pairs], dtype=torch.long)
    overlaps = torch.tensor([pair[4] for pair in pairs])
    return MODELS.build(config)(logits, make_matches(pairs), labels, overlaps)


def slow_sums(logits, entry_loss):
    """Sum of single entries, for each stage."""
    sums, start = [], 0
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
                        logits[image, start + query, label],
                        overlaps.get((query, label)),
                        best,
                    )
        sums.append(total)
        start += size
    return torch.stack(sums)


@pytest.mark.parametrize('name', FORMULAS)
@pytest.mark.parametrize('arguments', ({}, dict(alpha=0.6, gamma=1.5)))
def test_values_and_gradients(name, arguments):
    if name == 'RFDETRIoUAwareBCELoss':
        arguments = {key: x for key, x in arguments.items() if key != 'gamma'}
    torch.manual_seed(0)
    logits = 3 * torch.randn(BATCH, sum(STAGE_SIZES), CLASSES)
    fast, slow = logits.clone().requires_grad_(), logits.double().requires_grad_()
    sums = run(dict(type=name, **arguments), fast)
    expected = slow_sums(slow, partial(FORMULAS[name], **arguments))
    torch.testing.assert_close(sums, expected.float(), rtol=1e-5, atol=0)
    # Other weights for each stage, so that a gradient in the wrong place shows.
    weights = torch.tensor([1.0, -2.0, 0.5])
    (sums * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', FORMULAS)
def test_weight_precision_and_no_pairs(name):
    torch.manual_seed(0)
    logits = torch.randn(BATCH, sum(STAGE_SIZES), CLASSES, requires_grad=True)
    once, thrice = (
        run(dict(type=name, loss_weight=weight), logits) for weight in (1.0, 3.0)
    )
    torch.testing.assert_close(thrice, 3 * once)
    low = logits.bfloat16()
    assert run(dict(type=name), low).equal(run(dict(type=name), low.float()))
    nothing = run(dict(type=name), logits, pairs=())
    nothing.sum().backward()
    assert (nothing > 0).all() and (logits.grad != 0).all()
