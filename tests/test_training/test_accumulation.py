"""Gradient accumulation with the official denominator."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from tests import factory


def gradients(batches, accumulation):
    """Gradients of the optimizer step that ends the batches, and their losses."""
    model = factory.build_model().train()
    wrapper = build_optim_wrapper(
        model,
        dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=accumulation),
    )
    wrapper.initialize_count_status(model, 0, len(batches))
    wrapper.zero_grad = lambda: None
    losses = [model.train_step(batch, wrapper)['loss'].item() for batch in batches]
    return [parameter.grad for parameter in model.parameters()], losses


def join(batches):
    return {
        key: [item for batch in batches for item in batch[key]]
        for key in ('inputs', 'data_samples')
    }


def assert_close(some, others):
    norm = torch.stack([grad.norm() for grad in some]).norm()
    assert norm > 1
    for one, other in zip(some, others, strict=True):
        assert (one - other).norm() <= 1e-5 * norm


def test_micro_batches_with_as_many_objects_each_equal_one_batch():
    micro = [factory.batch((3, 1), seed=1), factory.batch((0, 4), seed=2)]
    accumulated, losses = gradients(micro, 2)
    at_once, (loss,) = gradients([join(micro)], 1)
    assert sum(losses) / 2 == pytest.approx(loss, rel=1e-5)
    assert_close(accumulated, at_once)


def test_each_micro_batch_has_its_own_denominator():
    """The official rule: the mean of the micro-batches' losses per object."""
    micro = [factory.batch((3, 2), seed=1), factory.batch((0, 1), seed=2)]
    accumulated, _ = gradients(micro, 2)
    first, second = (gradients([batch], 1)[0] for batch in micro)
    assert_close(
        accumulated,
        [(one + other) / 2 for one, other in zip(first, second, strict=True)],
    )
    joined, _ = gradients([join(micro)], 1)
    with pytest.raises(AssertionError):  # another rule: objects weigh the same
        assert_close(accumulated, joined)


def test_the_last_window_may_be_short():
    """Three batches accumulated by two: the last one steps alone, undivided."""
    micro = [factory.batch((2, 1), seed=seed) for seed in range(3)]
    model = factory.build_model().train()
    wrapper = build_optim_wrapper(
        model, dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)
    )
    wrapper.initialize_count_status(model, 0, 3)
    steps = []
    for batch in micro:
        before = model.bbox_head.fc_cls.bias.detach().clone()
        model.train_step(batch, wrapper)
        steps.append(not torch.equal(before, model.bbox_head.fc_cls.bias))
    assert steps == [False, True, True]
    assert wrapper.scale_loss(torch.tensor(1.0)) == 1
