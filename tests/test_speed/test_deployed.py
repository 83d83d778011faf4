import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmdet_rfdetr.errors import DeployedModelError, PrecisionError
from mmdet_rfdetr.models.projector import RFDETRProjector
from tests import golden, parity
from tests.test_segmentation.case import tiny_config

from ..test_models.small import small_config

CONFIGS = {'detection': small_config, 'segmentation': tiny_config}
PRECISIONS = {'float32': None, 'bfloat16': dict(device_type='cpu', dtype='bfloat16')}


def build(task='detection', precision='float32'):
    """A model whose layer scales and statistics are far from ones."""
    config = dict(CONFIGS[task](), precision=PRECISIONS[precision])
    return parity.rule_model(config).eval()


def inputs():
    return parity.rule_batch([(96, 96)] * 2)


@pytest.mark.parametrize('task', CONFIGS)
def test_outputs_are_those_of_the_plain_model(task):
    model = build(task)
    images, samples = inputs()
    with torch.no_grad():
        plain = model(images), scores(model, images, samples)
        assert model.switch_to_deploy() is model
        deployed = model(images), scores(model, images, samples)
    assert ('pred_masks' in plain[0]) == (task == 'segmentation')
    for name in ('pred_logits', 'pred_boxes', 'pred_masks'):
        if name in plain[0]:
            scale = max(1, plain[0][name].abs().max().item())
            torch.testing.assert_close(
                deployed[0][name], plain[0][name], rtol=0, atol=1e-5 * scale
            )
    torch.testing.assert_close(deployed[1], plain[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize('case', golden.CASES)
def test_every_output_is_that_of_the_plain_model(case):
    """Levels, registers, padding, other sizes of the grid, few tokens, masks."""
    case = golden.CASES[case]
    config = parity.case_config(case)
    model = parity.rule_model(config, case['seed']).eval()
    images, samples = parity.case_batch(case, config)
    with torch.no_grad():
        plain = model(images, samples), scores(model, images, samples)
        model.switch_to_deploy()
        for _ in range(2):  # Nothing of the first call is left in the second.
            deployed = model(images, samples), scores(model, images, samples)
            torch.testing.assert_close(deployed, plain, rtol=1e-4, atol=1e-4)


def test_sizes_may_change_from_call_to_call():
    plain, deployed = build(), build().switch_to_deploy()
    for side in (96, 64, 96):
        images = torch.randn(2, 3, side, side)
        with torch.no_grad():
            torch.testing.assert_close(
                deployed(images), plain(images), rtol=1e-4, atol=1e-4
            )


def scores(model, images, samples):
    detected = model(images, samples, mode='predict')
    return torch.stack([sample.pred_instances.scores for sample in detected])


@pytest.mark.parametrize('task', CONFIGS)
def test_in_bfloat16_it_is_as_exact_as_the_plain_model(task):
    """Layer scales are rounded with the weights and not after them.

    The selection of tokens jumps at the smallest difference, so what is compared is
    what it selects from.
    """
    images, samples = inputs()
    truth = memory(build(task), images)
    model = build(task, 'bfloat16')
    plain = memory(model, images)
    deployed = memory(model.switch_to_deploy(), images)
    assert 0 < (deployed - truth).norm() < 1.2 * (plain - truth).norm()
    with torch.no_grad():
        assert model(images)['pred_logits'].dtype == torch.float32
        assert scores(model, images, samples).isfinite().all()


@torch.no_grad()
def memory(model, images):
    with model.precision.autocast(images.device):
        return model.extract_feat(images)[0].float()


def test_twice_is_once():
    model = build().switch_to_deploy()
    blocks = list(model.backbone.blocks)
    assert list(model.switch_to_deploy().backbone.blocks) == blocks
    assert not model.training


def test_weights_take_the_dtype_of_the_policy():
    for precision, dtype in (('float32', torch.float32), ('bfloat16', torch.bfloat16)):
        model = build(precision=precision).switch_to_deploy()
        assert model.bbox_head.fc_cls.weight.dtype == dtype
        assert model.query_selection.fc_cls.weight.dtype == dtype
        assert model.backbone.blocks[0].attn.qkv.weight.dtype == dtype
        assert model.backbone.blocks[0].norm1.weight.dtype == torch.float32
        assert model.query_embedding.dtype == torch.float32


@torch.no_grad()
def test_its_weights_must_have_the_dtype_of_the_policy():
    images, _ = inputs()
    built = build(precision='bfloat16').switch_to_deploy()
    built(images)
    with pytest.raises(PrecisionError, match='were cast to float16'):
        built.half()(images)
    built = build().switch_to_deploy()
    built.backbone.bfloat16()
    with pytest.raises(PrecisionError, match='were cast to bfloat16'):
        built(images)


def test_a_deployed_model_refuses_what_it_cannot_do():
    model = build()
    weights = model.state_dict()
    model.switch_to_deploy()
    actions = {
        'trained': model.train,
        'saved': model.state_dict,
        'loaded with weights': lambda: model.load_state_dict(weights),
    }
    for word, action in actions.items():
        with pytest.raises(DeployedModelError, match=f'{word}.*Build the model anew'):
            action()
    with pytest.raises(DeployedModelError, match='loaded'):
        load_state_dict(model, weights)
    assert model.eval() is model


def test_a_copy_works():
    model = build().switch_to_deploy()
    images, _ = inputs()
    with torch.no_grad():
        first = model(images)
        assert torch.equal(
            copy.deepcopy(model)(images)['pred_boxes'], first['pred_boxes']
        )


def test_adapters_become_part_of_the_weights():
    pytest.importorskip('peft')
    config = small_config()
    config['backbone']['lora'] = dict(r=4, use_dora=True)
    model = MODELS.build(config).eval()
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    images, _ = inputs()
    plain = memory(model, images)
    deployed = memory(model.switch_to_deploy(), images)
    torch.testing.assert_close(deployed, plain, rtol=1e-4, atol=1e-5)
    assert not any('lora' in name for name, _ in model.named_parameters())


class Doubled(RFDETRProjector):
    """A part that a project derives from one of these: its outputs are its own."""

    def forward(self, *args, **kwargs):
        return tuple(2 * level for level in super().forward(*args, **kwargs))


class Convolutions(nn.ModuleList):
    """A backbone of another kind: a map of each of its layers."""

    def forward(self, images):
        return tuple(layer(images) for layer in self)


@pytest.mark.parametrize('part', ['backbone', 'neck'])
def test_a_part_of_the_project_stays_what_it_is(part):
    model = build()
    if part == 'neck':
        model.neck.__class__ = Doubled
    else:
        levels = len(model.backbone.out_indices)
        model.backbone = Convolutions(nn.Conv2d(3, 48, 8, 8) for _ in range(levels))
    images, _ = inputs()
    with torch.no_grad():
        plain = model(images)
        deployed = model.switch_to_deploy()(images)
    for name in ('pred_logits', 'pred_boxes'):
        torch.testing.assert_close(deployed[name], plain[name], rtol=0, atol=1e-4)
