"""Masks as a task head: in one pass with the losses, and beside another task."""

import pytest
import torch

from tests import parity
from tests.test_models.number_head import numbered_batch, with_numbers
from tests.test_segmentation.case import tiny_config

BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')


def batch(**options):
    options = dict(counts=(2, 1), num_classes=3, masked=True) | options
    return numbered_batch((96, 96), (96, 64), batch_size=(96, 96), **options)


def test_losses_and_detections_of_one_pass():
    model = parity.rule_model(tiny_config()).train()
    images, samples = batch()
    stages = model._stages(images, samples)
    torch.manual_seed(0)
    losses = model.bbox_head.loss(stages, samples)
    found = model.bbox_head.predict(stages, samples, rescale=False)
    torch.manual_seed(0)
    assert losses == model.loss(images, samples)
    expected = model.eval().predict(images, samples, rescale=False)
    for instances, sample in zip(found, expected, strict=True):
        of_sample = sample.pred_instances
        assert instances.keys() == of_sample.keys()
        torch.testing.assert_close(instances.scores, of_sample.scores)
        # A pixel may lie on the line.
        assert (instances.masks ^ of_sample.masks).float().mean() < 1e-3


@pytest.mark.parametrize('precision', (None, BFLOAT16), ids=('float32', 'bfloat16'))
def test_masks_beside_another_task(precision):
    """Each head keeps its losses, costs and results; they add up in the matching."""
    config = dict(with_numbers(tiny_config()), precision=precision)
    model = parity.rule_model(config).train()
    images, samples = batch()
    losses = model(images, samples, mode='loss')
    assert {'loss_mask', 'enc_loss_dice', 'loss_number', 'd0.loss_number'} <= {*losses}
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.mask_head.bias.grad.any() and model.number_head.fc.bias.grad.any()

    model.eval()
    with torch.no_grad():
        outputs = model(images, samples)
        found = model(images, samples, mode='predict')
    assert {'pred_masks', 'pred_numbers'} <= {*outputs['enc_outputs']}
    for sample in found:
        instances = sample.pred_instances
        assert len(instances.masks) == len(instances.numbers) == len(instances.scores)
        assert instances.masks.shape[1:] == sample.ori_shape


def test_costs_of_tasks_add_up():
    model = parity.rule_model(with_numbers(tiny_config(), number_weight=2.0)).train()
    images, samples = batch()
    stages = model._stages(images, samples)
    targets = model.bbox_head.get_targets(samples)

    def costs(*names):
        torch.manual_seed(0)
        total = torch.zeros(2, 2, sum(stages.sizes))
        with torch.no_grad():
            for name in names:
                model.get_submodule(name).add_costs(
                    total, stages, targets, targets.padded_index()
                )
        return total

    both = costs('mask_head', 'number_head')
    torch.testing.assert_close(both, costs('mask_head') + costs('number_head'))
