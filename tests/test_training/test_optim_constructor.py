import re

import pytest
import torch
from mmdet.registry import MODEL_WRAPPERS
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_rfdetr.training import optim_constructor
from mmdet_rfdetr.training.optim_constructor import is_undecayed

from ..fixtures import load_json, needs_fixtures

CASES = ('nano', 'medium', 'seg_nano')
VIT = 'backbone.0.encoder.encoder.'

# Official name to ours, the first match; what is stacked or packed in our model
# has one name for several official ones.
NAMES = [
    (rf'{VIT}embeddings\.patch_embeddings\.projection\.', 'backbone.patch_embed.'),
    (rf'{VIT}embeddings\.position_embeddings', 'backbone.pos_embed'),
    (rf'{VIT}embeddings\.', 'backbone.'),
    (
        rf'{VIT}encoder\.layer\.(\d+)\.attention\.attention\.(?:query|key|value)\.',
        r'backbone.blocks.\1.attn.qkv.',
    ),
    (
        rf'{VIT}encoder\.layer\.(\d+)\.attention\.output\.dense\.',
        r'backbone.blocks.\1.attn.proj.',
    ),
    (
        rf'{VIT}encoder\.layer\.(\d+)\.(layer_scale\d)\.lambda1',
        r'backbone.blocks.\1.\2',
    ),
    (rf'{VIT}encoder\.layer\.', 'backbone.blocks.'),
    (rf'{VIT}layernorm\.', 'backbone.norm.'),
    (r'backbone\.0\.projector\.stages\.(\d+)\.0\.', r'neck.stages.\1.c2f.'),
    (r'backbone\.0\.projector\.stages\.(\d+)\.1\.', r'neck.stages.\1.norm.'),
    (r'transformer\.enc_output\.\d+\.', 'query_selection.fc.'),
    (r'transformer\.enc_output_norm\.\d+\.', 'query_selection.norm.'),
    (r'transformer\.enc_out_class_embed\.\d+\.', 'query_selection.fc_cls.'),
    (r'transformer\.enc_out_bbox_embed\.\d+\.layers\.', 'query_selection.fc_reg.'),
    (r'transformer\.decoder\.', 'decoder.'),
    (r'refpoint_embed\.weight', 'reference_embedding'),
    (r'query_feat\.weight', 'query_embedding'),
    (r'class_embed\.', 'bbox_head.fc_cls.'),
    (r'bbox_embed\.layers\.', 'bbox_head.fc_reg.'),
    (r'segmentation_head\.', 'mask_head.'),
]


def our_name(official):
    for pattern, replacement in NAMES:
        if re.match(pattern, official):
            return re.sub(pattern, replacement, official, count=1)
    raise KeyError(official)


class Skeleton(nn.Module):
    """Parameters of one element each, with the names of an RFDETR model."""

    def __init__(self, names, out_indices=(3, 6, 9, 12)):
        super().__init__()
        for name in names:
            module = self
            *path, leaf = name.split('.')
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]
            module.register_parameter(leaf, nn.Parameter(torch.zeros(1)))
        self.backbone.out_indices = out_indices
        self.precision = None


def skeleton(case='nano'):
    official = load_json(f'{case}/optim')['params']
    names = {our_name(name) for name in official if 'mask_token' not in name}
    return Skeleton(sorted(names))


def optim_cfg(**paramwise_cfg):
    return dict(
        type='OptimWrapper',
        constructor='RFDETROptimWrapperConstructor',
        paramwise_cfg=paramwise_cfg,
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    )


def settings(model, optim_wrapper):
    """(learning rate, weight decay) of every parameter, by name."""
    of = {
        id(parameter): (group['lr'], group['weight_decay'])
        for group in optim_wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    return {
        name: of[id(parameter)]
        for name, parameter in model.named_parameters()
        if id(parameter) in of
    }


@needs_fixtures
@pytest.mark.parametrize('case', CASES)
def test_every_parameter_has_the_official_rate_and_decay(case):
    official = load_json(f'{case}/optim')
    model = skeleton(case)
    optim_wrapper = build_optim_wrapper(model, optim_cfg())
    ours = settings(model, optim_wrapper)
    compared = set()
    for name, expected in official['params'].items():
        if 'mask_token' in name:  # a parameter without gradient there, a buffer here
            continue
        rate, decay = ours[our_name(name)]
        assert rate == pytest.approx(expected['lr'], rel=1e-12), name
        assert decay == expected['weight_decay'], name
        compared.add(our_name(name))
    assert compared == set(ours) == {name for name, _ in model.named_parameters()}
    assert len(optim_wrapper.optimizer.param_groups) == len(official['groups']) == 28


def names(depth):
    yield from ('backbone.patch_embed.weight', 'backbone.cls_token')
    yield from ('backbone.register_tokens', 'backbone.norm.weight')
    for block in range(depth):
        yield f'backbone.blocks.{block}.norm1.weight'
        yield f'backbone.blocks.{block}.attn.qkv.weight'
    yield from ('decoder.norm.bias', 'bbox_head.fc_cls.bias')


def test_eleven_blocks_shift_the_rates():
    """The rates of Base, whose last feature map is taken after 11 blocks."""
    model = Skeleton(names(11), out_indices=(2, 5, 8, 11))
    rates = settings(model, build_optim_wrapper(model, optim_cfg()))
    assert rates['backbone.register_tokens'] == pytest.approx((4.0407e-6, 0), rel=1e-4)
    assert rates['backbone.blocks.0.attn.qkv.weight'] == pytest.approx(
        (5.0509e-6, 1e-4), rel=1e-4
    )
    assert rates['backbone.blocks.10.norm1.weight'] == pytest.approx((4.704e-5, 0))
    assert rates['backbone.norm.weight'] == pytest.approx((7.35e-5, 0))
    assert rates['decoder.norm.bias'] == pytest.approx((7e-5, 1e-4))


def test_paramwise_cfg_and_the_optimizer_set_the_rates():
    cfg = optim_cfg(lr_encoder=4e-4, lr_vit_layer_decay=1.0, lr_component_decay=1.0)
    cfg['optimizer'] = dict(type='SGD', lr=4e-4, weight_decay=0.0)
    model = Skeleton(names(12))
    optim_wrapper = build_optim_wrapper(model, cfg)
    assert type(optim_wrapper.optimizer) is torch.optim.SGD
    assert len(optim_wrapper.optimizer.param_groups) == 1
    assert set(settings(model, optim_wrapper).values()) == {(4e-4, 0.0)}


def test_frozen_parameters_are_not_optimised():
    model = Skeleton(names(12))
    model.backbone.requires_grad_(False)
    optim_wrapper = build_optim_wrapper(model, optim_cfg())
    assert set(settings(model, optim_wrapper)) == {
        'decoder.norm.bias',
        'bbox_head.fc_cls.bias',
    }


def test_the_first_group_is_the_one_that_is_logged_as_lr():
    optim_wrapper = build_optim_wrapper(Skeleton(names(12)), optim_cfg())
    assert optim_wrapper.get_lr()['lr'][0] == 1e-4


def test_a_wrapped_model():
    class Wrapped(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(name='WrappedForTest', module=Wrapped, force=True)
    try:
        model = Skeleton(names(12))
        optim_wrapper = build_optim_wrapper(Wrapped(model), optim_cfg())
    finally:
        MODEL_WRAPPERS._module_dict.pop('WrappedForTest')
    assert len(settings(model, optim_wrapper)) == len(list(names(12)))


def test_the_log_is_one_compact_table(monkeypatch):
    lines = []
    monkeypatch.setattr(
        optim_constructor,
        'print_log',
        lambda text, logger: lines.extend(text.split('\n')),
    )
    build_optim_wrapper(Skeleton(names(12)), optim_cfg())
    assert lines[0] == 'AdamW: 30 parameters in 30 tensors and 28 groups'
    assert len(lines) == 2 + 16  # embeddings, 12 blocks, norm, decoder, rest
    block = next(line for line in lines if line.startswith('encoder block 11 '))
    assert block.split()[3:] == ['4.704e-05', '2', '2', '1', '1', '0']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(paramwise_cfg=dict(layer_decay=0.7)), r"unknown keys \['layer_decay'\]"),
        (dict(optimizer=dict(type='AdamW', lr=1e-4)), r"lacks \['weight_decay'\]"),
    ],
)
def test_mistakes_in_the_config(change, message):
    with pytest.raises(ValueError, match=message):
        build_optim_wrapper(Skeleton(names(12)), dict(optim_cfg(), **change))


def test_another_model_is_refused():
    model = Skeleton(name for name in names(12) if not name.startswith('decoder'))
    with pytest.raises(ValueError, match='no parameter in "decoder"'):
        build_optim_wrapper(model, optim_cfg())


def test_layer_scale_is_decayed_and_other_families_decay_norms():
    assert not is_undecayed('backbone.blocks.3.layer_scale1')
    assert not is_undecayed('decoder.layers.0.norm1.bias')
    assert not is_undecayed('neck.stages.0.norm.weight')
    assert is_undecayed('backbone.blocks.3.attn.proj.bias')
