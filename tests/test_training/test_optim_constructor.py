import pytest
import torch
from mmdet.registry import MODEL_WRAPPERS, MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

import mmdet_rfdetr
from mmdet_rfdetr.checkpoints.names import from_official
from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.precision import PrecisionPolicy, RFDETRAmpOptimWrapper
from mmdet_rfdetr.training import optim_constructor
from mmdet_rfdetr.training.optim_constructor import (
    RFDETROptimWrapperConstructor,
    is_undecayed,
)

from .. import factory
from ..fixtures import load_json, needs_fixtures


def official_settings(case, key):
    """The official ``lr`` or ``weight_decay`` of each of our parameters.

    Packing and stacking of parameters also packs their settings, which have to be
    the same then.
    """
    params = load_json(f'{case}/optim')['params']
    ours = from_official(
        {
            name: torch.full((13, 1), params[name][key], dtype=torch.float64)
            for name in params
        }
    )
    del ours['backbone.mask_token']  # here a buffer; a parameter without gradient there
    assert all((values == values.flatten()[0]).all() for values in ours.values())
    return {name: values.flatten()[0].item() for name, values in ours.items()}


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


def optim_cfg(**paramwise_cfg):
    return dict(
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


def assert_official(case, model):
    """Compare the groups of ``model`` with those of the official one."""
    optim_wrapper = build_optim_wrapper(model, optim_cfg())
    ours = settings(model, optim_wrapper)
    assert set(ours) == {name for name, _ in model.named_parameters()}
    rates = {name: rate for name, (rate, _) in ours.items()}
    assert rates == pytest.approx(official_settings(case, 'lr'), rel=1e-12)
    decays = {name: decay for name, (_, decay) in ours.items()}
    assert decays == official_settings(case, 'weight_decay')
    groups = load_json(f'{case}/optim')['groups']
    assert len(optim_wrapper.optimizer.param_groups) == len(groups) == 28


@needs_fixtures
@pytest.mark.parametrize('case', ['nano', 'medium', 'seg_nano'])
def test_every_parameter_has_the_official_rate_and_decay(case):
    assert_official(case, Skeleton(official_settings(case, 'lr')))


@needs_fixtures
@pytest.mark.parametrize('case', ['nano', 'medium'])
def test_the_shipped_configs_have_the_official_rates(case):
    cfg = Config.fromfile(mmdet_rfdetr.config(f'rfdetr_{case}_coco.py'))
    assert {
        key: cfg.optim_wrapper[key]
        for key in ('constructor', 'paramwise_cfg', 'optimizer')
    } == dict(
        constructor='RFDETROptimWrapperConstructor',
        paramwise_cfg=RFDETROptimWrapperConstructor.DEFAULTS,
        optimizer=optim_cfg()['optimizer'],
    )
    cfg.model.pop('data_preprocessor')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert_official(case, model)


def names(depth):
    yield from ('backbone.patch_embed.weight', 'backbone.cls_token')
    yield from ('backbone.register_tokens', 'backbone.norm.weight')
    for block in range(depth):
        yield f'backbone.blocks.{block}.norm1.weight'
        yield f'backbone.blocks.{block}.attn.qkv.weight'
    yield from ('decoder.norm.bias', 'bbox_head.fc_cls.bias')


def test_embeddings_may_have_a_rate_of_their_own():
    model = Skeleton(names(11), out_indices=(2, 5, 8, 11))
    plain, cfg = optim_cfg(), optim_cfg()
    cfg['paramwise_cfg'] = dict(cfg.get('paramwise_cfg', {}), lr_embeddings=3e-5)
    before, rates = (
        settings(model, build_optim_wrapper(model, x)) for x in (plain, cfg)
    )
    for name, rate in rates.items():
        own = name in ('backbone.patch_embed.weight', *EMBEDDED)
        assert rate == ((3e-5, 0) if own else before[name]), name


EMBEDDED = 'backbone.cls_token', 'backbone.register_tokens'


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


def test_the_log_counts_groups_and_frozen_parameters(monkeypatch):
    lines = []
    monkeypatch.setattr(
        optim_constructor, 'print_log', lambda text, logger: lines.append(text)
    )
    model = Skeleton(names(12))
    model.backbone.cls_token.requires_grad = False
    build_optim_wrapper(model, optim_cfg())
    assert lines == ['29 parameters in 28 groups of the optimizer, 1 frozen']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(paramwise_cfg=dict(layer_decay=0.7)), r"unknown keys \['layer_decay'\]"),
        (dict(optimizer=dict(type='AdamW', lr=1e-4)), 'lacks lr or weight_decay'),
    ],
)
def test_mistakes_in_the_config(change, message):
    with pytest.raises(ValueError, match=message):
        build_optim_wrapper(Skeleton(names(12)), dict(optim_cfg(), **change))


@pytest.mark.parametrize(
    ('of', 'message'),
    [
        (
            [name for name in names(12) if not name.startswith('decoder')],
            'has no parameter in "decoder"',
        ),
        (
            [*names(12), 'backbone.blocks.12.bias'],
            'has a parameter in "encoder block 12"',
        ),
    ],
)
def test_another_model_is_refused(of, message):
    with pytest.raises(SettingError, match=message) as error:
        build_optim_wrapper(Skeleton(of), optim_cfg())
    assert 'constructor=RFDETRUniformOptimWrapperConstructor' in str(error.value)


def test_a_backbone_of_another_kind_is_refused():
    model = Skeleton(['backbone.stem.weight', 'decoder.bias', 'neck.bias'])
    del model.backbone.out_indices
    with pytest.raises(SettingError, match='no parameter in "encoder embeddings"'):
        build_optim_wrapper(model, optim_cfg())


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(SettingError, match='^Linear has no parameter in "encoder emb'):
        build_optim_wrapper(nn.Linear(2, 2), optim_cfg())


def test_layer_scale_is_decayed_and_other_families_decay_norms():
    assert not is_undecayed('backbone.blocks.3.layer_scale1')
    assert not is_undecayed('decoder.layers.0.norm1.bias')
    assert not is_undecayed('neck.stages.0.norm.weight')
    assert is_undecayed('backbone.blocks.3.attn.proj.bias')


@pytest.mark.parametrize(('stages', 'frozen'), [(-1, 0), (0, 4), (1, 18), (2, 34)])
def test_frozen_stages_of_the_backbone_are_not_optimised(stages, frozen):
    model = factory.build_model(**{'backbone.frozen_stages': stages})
    ours = settings(model, build_optim_wrapper(model, optim_cfg()))
    assert len(ours) == len(list(model.parameters())) - frozen
    assert set(ours) == {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ('cuda', 'cfg', 'fused'),
    [(False, {}, None), (True, {}, True), (True, dict(fused=False), False)],
)
def test_adamw_is_fused_on_cuda_by_default(monkeypatch, cuda, cfg, fused):
    built = {}
    monkeypatch.setattr(optim_constructor, 'on_cuda', lambda model: cuda)
    monkeypatch.setattr(torch.optim.AdamW, '__init__', recorder(built))
    with pytest.raises(StopIteration):
        build_optim_wrapper(
            Skeleton(names(12)),
            dict(optim_cfg(), optimizer=dict(optim_cfg()['optimizer'], **cfg)),
        )
    assert built.get('fused') is fused


def recorder(built):
    def init(self, params, **kwargs):
        built.update(kwargs)
        raise StopIteration  # the fused kernel itself needs a device

    return init


@pytest.mark.parametrize('kind', ('', 'Uniform'))
def test_amp_does_not_replace_the_wrapper_that_follows_the_model(kind):
    """``--amp`` sets ``type='AmpOptimWrapper'``."""
    model = Skeleton(names(12))
    model.precision = PrecisionPolicy.from_config(
        dict(device_type='cpu', dtype='bfloat16')
    )
    cfg = dict(optim_cfg(), type='AmpOptimWrapper', loss_scale='dynamic')
    cfg['constructor'] = f'RFDETR{kind}OptimWrapperConstructor'
    optim_wrapper = build_optim_wrapper(model, cfg)
    assert type(optim_wrapper) is RFDETRAmpOptimWrapper
    assert len(settings(model, optim_wrapper)) == len(list(names(12)))
