"""What training does with keypoints: optimizer groups, labels, precision, resuming."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.keypoints.unit_precision import RFDETRUnitPrecisionHook
from tests import parity
from tests.fixtures import needs_fixtures
from tests.test_training.test_optim_constructor import assert_official

from .case import batch, tiny_config

LAST = 'keypoint_head.embed.2.', 'keypoint_head.encoder_embed.2.'
BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')


@needs_fixtures
def test_every_parameter_has_the_official_rate_and_decay():
    """Those of the points in the decoder as the decoder, all others as the heads."""
    from tests.test_training.test_optim_constructor import Skeleton, official_settings

    assert_official('keypoint', Skeleton(official_settings('keypoint', 'lr')))


def losses(official_labels, labels, schema=(4, 0, 2)):
    """Keypoint terms of a batch whose objects have these labels."""
    config = tiny_config(schema)
    config['keypoint_head']['official_labels'] = official_labels
    model = parity.rule_model(config).train()
    images, samples = batch((64, 64), counts=(len(labels),), schema=schema)
    (sample,) = samples
    sample.gt_instances.labels = torch.tensor(labels)
    sample.gt_instances.keypoints_visible[:] = 2
    found = model(images, samples, 'loss')
    sum(found.values()).backward()
    assert all(p.grad is not None for p in model.keypoint_head.parameters())
    return {name: float(x.detach()) for name, x in found.items() if 'kpt' in name}


@pytest.mark.parametrize('official_labels', (False, True))
def test_objects_of_classes_without_points(official_labels):
    """Inside the schema they have no terms; beyond it, officially, nobody has."""
    inside = losses(official_labels, [0, 1, 2])
    beyond = losses(official_labels, [0, 4, 2])
    assert all(value != 0 for value in inside.values())
    assert any(beyond.values()) != official_labels
    if not official_labels:
        assert all(value != 0 for value in beyond.values())


@pytest.mark.parametrize('precision', (None, BFLOAT16), ids=('float32', 'bfloat16'))
def test_losses_and_places_are_float32(precision, monkeypatch):
    """Likelihood, areas and places are not rounded, whatever the network is."""
    from mmdet_rfdetr.keypoints import keypoint_head

    seen = []
    point_losses = keypoint_head.point_losses

    def observed(points, true, areas, active):
        seen.extend((points, true.xy, areas))
        assert not torch.is_autocast_enabled('cpu')
        return point_losses(points, true, areas, active)

    monkeypatch.setattr(keypoint_head, 'point_losses', observed)
    model = parity.rule_model(dict(tiny_config(), precision=precision)).train()
    tokens = []
    model.keypoint_head.decoder.layers[0].linear1.register_forward_hook(
        lambda module, inputs, output: tokens.append(output.dtype)
    )
    images, samples = batch((64, 64), counts=(2,))
    found = model(images, samples, 'loss')
    assert {x.dtype for x in seen} == {torch.float32}
    assert tokens == [torch.bfloat16 if precision else torch.float32]
    assert {x.dtype for name, x in found.items() if 'kpt' in name} == {torch.float32}


def test_bfloat16_stays_near_float32():
    terms = []
    for precision in (None, BFLOAT16):
        model = parity.rule_model(dict(tiny_config(), precision=precision)).train()
        images, samples = batch((64, 64), (64, 48), counts=(3, 2))
        found = model(images, samples, 'loss')
        terms.append(sum(x for name, x in found.items() if 'kpt_l1' in name).detach())
    assert terms[1] != terms[0]
    torch.testing.assert_close(terms[1], terms[0], rtol=0.1, atol=0)


def test_images_without_objects():
    model = parity.rule_model(tiny_config()).train()
    images, samples = batch((64, 64), (64, 64), counts=(0, 0))
    found = model(images, samples, 'loss')
    assert all(not x for name, x in found.items() if 'kpt' in name)
    sum(found.values()).backward()
    for name, parameter in model.keypoint_head.named_parameters():
        assert parameter.grad is not None, name


def test_points_of_another_number_are_cut_and_filled():
    """As the official reader does: 0 for points that an object lacks."""
    head = MODELS.build(tiny_config()).keypoint_head
    _, samples = batch((64, 64), counts=(2,))
    instances = samples[0].gt_instances
    wanted = head.get_targets([instances], [samples[0].metainfo])
    instances.keypoints_visible[:, 3] = 0
    for change in (
        lambda x: x[:, :3],
        lambda x: torch.cat((x[:, :3], 0 * x[:, :1], 7 + x), dim=1),
    ):
        changed = instances.clone()
        for name in ('keypoints', 'keypoints_visible'):
            changed.set_field(change(instances[name]), name)
        found = head.get_targets([changed], [samples[0].metainfo])
        assert found.xy.shape == wanted.xy.shape == (2, 4, 2)
        assert found.visibility[:, :3].equal(wanted.visibility[:, :3])
        assert not found.visibility[:, 3].any()


def test_cuda_graphs_are_refused_by_name():
    config = dict(tiny_config(), cuda_graphs=True)
    with pytest.raises(SettingError, match='keypoint_head=None'):
        MODELS.build(config)


def test_first_points_are_the_centres_of_the_boxes():
    """A fresh head says the centre of the reference, with unit precision."""
    torch.manual_seed(0)
    model = MODELS.build(tiny_config()).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 64))
    points = outputs['pred_keypoints'].unflatten(2, (3, 4))[:, :, 0]
    assert not points[..., 2:].any()
    # The box head starts at the same reference.
    boxes = outputs['pred_boxes'][:, :, None, :2].expand_as(points[..., :2])
    torch.testing.assert_close(points[..., :2], boxes)
    for layer in model.keypoint_head.decoder.layers:
        assert layer.instance_scale.tolist() == pytest.approx([1e-6])
        assert layer.self_attn.in_proj_weight.any()
    first, *others = model.keypoint_head.encoder_embed[0].weight
    assert all(other.equal(first) for other in others)
    modulation = model.keypoint_head.initialiser.modulation[-1]
    assert modulation.weight.any() and not modulation.bias.any()


@pytest.mark.parametrize(
    ('load_from', 'resume', 'reset'),
    [(None, False, False), ('weights.pth', False, True), ('run.pth', True, False)],
)
def test_precision_of_a_run_that_begins_with_weights(load_from, resume, reset):
    model = parity.rule_model(tiny_config())
    before = {name: x.clone() for name, x in model.state_dict().items()}
    runner = SimpleNamespace(model=model, _load_from=load_from, _resume=resume)
    RFDETRUnitPrecisionHook().before_train(runner)
    for name, value in model.state_dict().items():
        if reset and name.startswith(LAST):
            rows = value if value.dim() == 2 + ('encoder' in name) else value[..., None]
            kept = [0, 1, 2, 3, 7]
            expected = before[name].view_as(rows)
            assert not rows[..., 4:7, :].any(), name
            assert rows[..., kept, :].equal(expected[..., kept, :]), name
        else:
            assert value.equal(before[name]), name
    with torch.no_grad():
        points = model.eval()(torch.zeros(1, 3, 64, 64))['pred_keypoints']
    assert bool(points[..., 4:7].any()) != reset
