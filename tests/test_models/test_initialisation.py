"""What a fresh model starts from, as the official one does."""

import copy
import math

import pytest
import torch
from mmdet.registry import MODELS

from .small import CLASSES, SIZES, small_config

WIDTH, DIMS = 48, SIZES['hidden_dim']


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    config = small_config(projector_scale=['P3', 'P5'])
    config['backbone']['num_registers'] = 2
    return MODELS.build(config)


def spread(parameter):
    return parameter.detach().std().item()


def assert_uniform(parameter, bound):
    """Uniform in [-bound, bound], as far as so many numbers can tell."""
    assert parameter.abs().max() <= bound * (1 + 1e-6)
    assert spread(parameter) == pytest.approx(
        bound / math.sqrt(3), rel=2 / math.sqrt(parameter.numel())
    )


def assert_xavier(weight):
    assert_uniform(weight, math.sqrt(6 / sum(weight.shape)))


def assert_default(layer):
    """PyTorch's own initialisation of a linear layer or a convolution."""
    bound = 1 / math.sqrt(layer.weight[0].numel())
    assert_uniform(layer.weight, bound)
    if layer.bias is not None:
        assert layer.bias.any() and layer.bias.abs().max() <= bound


def test_vit(model):
    backbone = model.backbone
    for block in backbone.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert spread(layer.weight) == pytest.approx(0.02, rel=0.05)
            assert not layer.bias.any()
        for norm in (block.norm1, block.norm2):
            assert norm.weight.eq(1).all() and not norm.bias.any()
        assert block.layer_scale1.eq(1).all() and block.layer_scale2.eq(1).all()
    assert spread(backbone.patch_embed.weight) == pytest.approx(0.02, rel=0.05)
    assert not backbone.patch_embed.bias.any()
    assert spread(backbone.pos_embed) == pytest.approx(0.02, rel=0.05)
    assert spread(backbone.cls_token) == pytest.approx(0.02, rel=0.5)
    assert not backbone.mask_token.any()
    assert not backbone.register_tokens.any()


def test_projector(model):
    for stage in model.neck.stages:
        convolutions = [
            module
            for module in stage.modules()
            if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
        ]
        assert len(convolutions) == 2 + 2 + 6
        for convolution in convolutions:
            assert_default(convolution)
        assert stage.norm.weight.eq(1).all() and not stage.norm.bias.any()


def test_decoder(model):
    first, second = model.decoder.layers
    for layer in (first, second):
        assert_xavier(layer.self_attn.in_proj_weight)
        assert not layer.self_attn.in_proj_bias.any()
        assert not layer.self_attn.out_proj.bias.any()
        for linear in (layer.self_attn.out_proj, layer.linear1, layer.linear2):
            assert_xavier(linear.weight)
        for name, fan_in in (('linear1', DIMS), ('linear2', SIZES['dim_feedforward'])):
            assert_uniform(getattr(layer, name).bias, fan_in**-0.5)
        # The deformable attention is checked by its own tests.
        assert_xavier(layer.cross_attn.value_proj.weight)
        assert not layer.cross_attn.sampling_offsets.weight.any()
        assert layer.cross_attn.sampling_offsets.bias.any()
    for name, parameter in first.named_parameters():
        other = second.get_parameter(name)
        same = parameter.dim() == 1 or name.endswith(
            ('sampling_offsets.weight', 'attention_weights.weight')
        )
        assert parameter.equal(other) == same, name
    for linear in model.decoder.ref_point_head:
        assert_xavier(linear.weight)
        assert_uniform(linear.bias, linear.in_features**-0.5)


def test_heads(model):
    head = model.bbox_head
    assert_uniform(head.fc_cls.weight, DIMS**-0.5)
    torch.testing.assert_close(
        head.fc_cls.bias, torch.full((CLASSES,), -math.log(99)), rtol=1e-6, atol=0
    )
    first, second, last = head.fc_reg
    assert_default(first)
    assert_default(second)
    assert not last.weight.any() and not last.bias.any()


def test_selection_heads_are_copies_in_all_groups(model):
    selection, head = model.query_selection, model.bbox_head
    for grouped, layer in (
        (selection.fc_cls, head.fc_cls),
        *zip(selection.fc_reg, head.fc_reg, strict=True),
    ):
        for group in range(SIZES['group_detr']):
            assert grouped.weight[group].equal(layer.weight)
            assert grouped.bias[group].equal(layer.bias)


def test_selection_layers_differ_between_groups(model):
    fc, norm = model.query_selection.fc, model.query_selection.norm
    for weight, bias in zip(fc.weight, fc.bias, strict=True):
        assert_xavier(weight)
        assert_uniform(bias, DIMS**-0.5)
    assert not fc.weight[0].equal(fc.weight[1])
    assert norm.weight.eq(1).all() and not norm.bias.any()


def test_query_tables(model):
    assert not model.reference_embedding.any()
    table = model.query_embedding
    assert spread(table) == pytest.approx(1, rel=0.1)
    assert table.mean().item() == pytest.approx(0, abs=0.1)


def test_mmengine_leaves_it_as_it_is(model):
    """The runner calls ``init_weights`` before training."""
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    after = model.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
