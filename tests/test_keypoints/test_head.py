"""Keypoints as a task: their outputs, losses and detections."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.errors import SettingError
from tests import parity

from .case import batch, tiny_config

BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')
PREFIXES = ('d0.', '', 'enc_')
TERMS = ('l1', 'findable', 'visible', 'nll')


@pytest.mark.parametrize('precision', (None, BFLOAT16), ids=('float32', 'bfloat16'))
def test_training(precision):
    model = parity.rule_model(dict(tiny_config(), precision=precision)).train()
    images, samples = batch((64, 64), (64, 48), counts=(3, 1))
    losses = model(images, samples, 'loss')
    names = {f'{prefix}loss_kpt_{term}' for prefix in PREFIXES for term in TERMS}
    assert {name for name in losses if 'kpt' in name} == names
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.keypoint_head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.dtype == torch.float32


def test_outputs_and_detections():
    model = parity.rule_model(tiny_config()).eval()
    images, samples = batch((64, 64), (64, 48), counts=(3, 1))
    with torch.no_grad():
        outputs = model(images, samples)
        found = model(images, samples, 'predict')
    for stage in (outputs, *outputs['aux_outputs'], outputs['enc_outputs']):
        points = stage['pred_keypoints']
        assert points.shape == (2, 10, 3 * 4, 8) and points.dtype == torch.float32
        points = points.unflatten(2, (3, 4))
        assert not points[:, :, 1].any() and not points[:, :, 2, 2:].any()
        assert points[:, :, 0].all() and points[:, :, 2, :2].all()
    for sample in found:
        instances = sample.pred_instances
        count = len(instances)
        assert instances.keypoints.shape == (count, 4, 2)
        assert instances.keypoint_scores.shape == (count, 4)
        assert instances.keypoint_covariances.shape == (count, 4, 2, 2)
        assert instances.scores.diff().max() <= 0


@pytest.mark.parametrize('counts', ([], [0, 0], [-1], [1.5], 17, [1] * 6))
def test_a_wrong_number_of_points_is_refused(counts):
    config = tiny_config()
    config['keypoint_head']['num_keypoints'] = counts
    with pytest.raises(SettingError, match='num_keypoints'):
        MODELS.build(config)


def test_objects_without_loaded_points_are_refused():
    model = parity.rule_model(tiny_config()).train()
    images, samples = parity.rule_batch([(64, 64)], counts=(2,), num_classes=3)
    with pytest.raises(SettingError, match='gt_instances.keypoints'):
        model(images, samples, 'loss')


@pytest.mark.parametrize('layers', (0, 1))
def test_fewer_layers_run(layers):
    """The points of layers that do not run are not asked for."""
    model = parity.rule_model(tiny_config()).eval()
    images, samples = batch((64, 64), counts=(2,))
    with torch.no_grad():
        whole = model(images, samples)
        model.decoder.num_layers = layers
        found = model(images, samples)
        model(images, samples, 'predict')
    expected = whole['aux_outputs'][0] if layers else whole['enc_outputs']
    assert found['pred_keypoints'].equal(expected['pred_keypoints'])
    assert found['pred_logits'].equal(expected['pred_logits'])
