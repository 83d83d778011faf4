"""Adapters on the encoder: the official ones, their files, and a run with them."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner, load_checkpoint

from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.formats import convert_checkpoint
from mmdet_rfdetr.formats import lora_entries as entries

from .. import factory, golden, parity
from ..interpreter import run
from ..live import PYTHON, ask
from ..test_training.conftest import mmdet_scope  # noqa: F401
from ..test_training.test_optim_constructor import optim_cfg, settings
from ..test_training.test_recipe import cfg

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec('peft') is None,
    reason='peft absent: pip install mmdet_rfdetr[lora]',
)


def adapted_model(**lora):
    """A small model whose adapters do something."""
    return factory.build_model(**{'backbone.lora': lora})


def logits(model):
    data = model.data_preprocessor(factory.batch((2, 1)), False)
    with torch.no_grad():
        return model.eval()(data['inputs'])['pred_logits']


@needs_peft
@pytest.mark.parametrize('lora', [{}, dict(r=4, alpha=8, use_dora=False)])
def test_only_adapters_of_the_encoder_are_trained(lora):
    model = adapted_model(**lora)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    rank = lora.get('r', 16)
    kinds = ['lora_A', 'lora_B'] + ['lora_magnitude_vector'] * lora.get('use_dora', 1)
    assert {name for name in trained if name.startswith('backbone.')} == {
        f'backbone.blocks.{block}.attn.qkv.{part}.{kind}.default.weight'
        for block in range(2)
        for part in ('query', 'key', 'value')
        for kind in kinds
    }
    low = model.backbone.blocks[0].attn.qkv.query.lora_A['default'].weight
    assert low.shape == (rank, 16)
    assert model.backbone.lora_scale == lora.get('alpha', 16) / rank
    wrapper = build_optim_wrapper(model, optim_cfg())
    assert set(settings(model, wrapper)) == trained


@needs_peft
def test_a_fresh_adapter_changes_nothing():
    """Also after weights were loaded: DoRA's lengths are then those of the new ones."""
    torch.manual_seed(0)
    model = MODELS.build(factory.model_config(**{'backbone.lora': {}}))
    plain = factory.build_model()
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)


@needs_peft
@pytest.mark.parametrize('lora', [{}, dict(r=4, alpha=8, use_dora=False)])
def test_a_plain_model_merges_the_adapters_of_a_file(lora):
    model = adapted_model(**lora)
    plain = factory.build_model()
    assert not torch.allclose(logits(model), logits(plain), atol=1e-2)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-5, atol=1e-5)


def test_adapters_of_half_precision_are_merged_in_float32():
    """Their sum is not rounded to the precision of the file."""
    generator = torch.Generator().manual_seed(0)
    weight, low_a, low_b = (
        torch.randn(shape, generator=generator).half()
        for shape in ((8, 8), (2, 8), (8, 2))
    )
    length = torch.rand(8, generator=generator).half()
    adapter = dict(lora_A=low_a, lora_B=low_b, lora_magnitude_vector=length)
    merged = entries.merged_weight(weight, adapter, 1.0)
    total = weight.double() + low_b.double() @ low_a.double()
    expected = total * (length.double() / total.norm(dim=1))[:, None]
    torch.testing.assert_close(merged, expected.float(), rtol=1e-6, atol=1e-6)


@needs_peft
def test_a_file_of_the_encoder_alone():
    model = adapted_model()
    for other in (factory.build_model(), factory.build_model(**{'backbone.lora': {}})):
        other.backbone.load_state_dict(model.state_dict(), strict=True)
        image = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            for one, two in zip(
                model.backbone.eval()(image), other.backbone.eval()(image), strict=True
            ):
                torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@needs_peft
@pytest.mark.parametrize(
    ('file', 'message'),
    [
        (dict(r=4, alpha=4), r'is \(16, 16\) in the model and \(4, 16\)'),
        (dict(use_dora=False), 'no such entry'),
        (dict(alpha=32), 'by 2, the model by 1 .*make alpha 2 times r'),
    ],
)
def test_other_adapters_are_refused(file, message):
    with pytest.raises(CheckpointError, match=message):
        adapted_model().load_state_dict(adapted_model(**file).state_dict())


def test_adapters_that_cannot_be_merged_are_not_dropped():
    layer = 'backbone.blocks.0.mlp.fc1'
    adapter = dict(lora_A=torch.ones(2, 4), lora_B=torch.ones(4, 2))
    with pytest.raises(CheckpointError, match=f'adapter on {layer}'):
        entries.merge({f'{layer}.weight': torch.ones(4, 4)}, {layer: adapter}, 1.0)


@needs_peft
def test_unknown_keys():
    with pytest.raises(ValueError, match=r"unknown keys \['rank'\]"):
        adapted_model(rank=4)


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)  # as if it were not there
    with pytest.raises(ImportError, match=r"pip install 'mmdet_rfdetr\[lora\]'"):
        factory.build_model(**{'backbone.lora': {}})


@needs_peft
def test_a_run_its_checkpoint_and_a_converted_file(tmp_path):
    """Train, go on in a new run, and deploy without adapters."""
    factory.write_coco(tmp_path / 'data')
    settings = cfg(tmp_path / 'data', tmp_path / 'work')
    settings.model.backbone.pop('frozen_stages')
    settings.model.backbone.lora = {}
    settings.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(settings)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner.train()
    for name, parameter in runner.model.named_parameters():
        if name.startswith('backbone.'):
            moved = not torch.equal(parameter, before[name])
            assert moved == ('.lora_' in name), name

    file = tmp_path / 'work' / 'epoch_1.pth'
    model = MODELS.build(settings.model)
    load_checkpoint(model, str(file))
    model_cfg = settings.model.copy()
    model_cfg.backbone.pop('lora')
    plain = MODELS.build(model_cfg)
    load_checkpoint(plain, str(file))
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-4)

    convert_checkpoint(str(file), str(tmp_path / 'official.pth'))
    converted = MODELS.build(model_cfg)
    load_checkpoint(converted, str(tmp_path / 'official.pth'))
    torch.testing.assert_close(logits(converted), logits(plain), rtol=1e-6, atol=1e-6)


CASE = dict(golden.CASES['levels'], lora=True)


@pytest.fixture(scope='module')
def official(tmp_path_factory):
    if PYTHON is None or not has_peft(PYTHON):
        pytest.skip('official adapters absent: install rfdetr[lora,train]==1.11.2')
    (found,) = ask(tmp_path_factory.mktemp('lora'), [CASE])
    return found


def has_peft(python):
    code = 'import peft, rfdetr.training.param_groups'
    return run([python, '-W', 'ignore', '-c', code]).returncode == 0


def official_file(found):
    return {
        name.removeprefix('file/'): torch.from_numpy(value)
        for name, value in found.items()
        if name.startswith('file/')
    }


def config(**lora):
    made = parity.case_config(CASE)
    made['backbone'].update(lora)
    return made


def inputs():
    return parity.case_batch(CASE, config())


@needs_peft
def test_the_official_adapters_have_the_official_numbers(official):
    model = MODELS.build(config(lora={}))
    model.load_state_dict(official_file(official))
    images, samples = inputs()
    with torch.no_grad():
        ours = model.eval()(images, samples)['pred_logits'].numpy()
    np.testing.assert_allclose(ours, official['pred_logits'], rtol=2e-5, atol=2e-5)
    total = sum(model.train()(images, samples, 'loss').values())
    assert total.item() == pytest.approx(official['total'], rel=1e-5)
    total.backward()
    gradients = by_official_name(model, {n: p.grad for n, p in trained(model)})
    wanted = {k[5:]: v for k, v in official.items() if k.startswith('grad/')}
    adapters = {name for name in wanted if '.lora_' in name and '.layer.3.' not in name}
    assert len(adapters) == 3 * 3 * 3
    for name in adapters:
        apart = np.linalg.norm(gradients[name] - wanted[name])
        assert apart <= 1e-3 * np.linalg.norm(wanted[name]) + 1e-6, name


@needs_peft
def test_the_official_adapters_have_the_official_rates(official):
    model = MODELS.build(config(lora={}))
    ours = settings(model, build_optim_wrapper(model, optim_cfg()))
    ours = by_official_name(model, ours)
    adapters = [name for name in ours if '.lora_' in name]
    assert len(adapters) == 3 * 3 * 3
    for name in adapters:
        assert ours[name] == pytest.approx(tuple(official[f'rates/{name}'])), name


def test_a_plain_model_merges_the_official_adapters(official):
    """peft is not needed to use them."""
    model = MODELS.build(config())
    model.load_state_dict(official_file(official))
    images, samples = inputs()
    with torch.no_grad():
        ours = model.eval()(images, samples)['pred_logits'].numpy()
    np.testing.assert_allclose(ours, official['pred_logits'], rtol=2e-5, atol=2e-5)


def trained(model):
    return [(n, p) for n, p in model.named_parameters() if p.requires_grad]


def by_official_name(model, values):
    """Give entries of adapters their official names; others keep theirs."""
    wrap = 'backbone.0.encoder.base_model.model.encoder.encoder.layer.'
    named = {}
    for name, value in values.items():
        if '.lora_' in name:
            block, _, rest = name.removeprefix('backbone.blocks.').partition('.')
            rest = rest.removeprefix('attn.qkv.')
            name = f'{wrap}{block}.attention.attention.{rest}'
        named[name] = value
    return named
