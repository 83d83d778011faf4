import argparse
import copy
import logging
import pickle

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import load_checkpoint
from torch import nn

from mmdet_rfdetr.checkpoints import load_checkpoint_file, to_official
from mmdet_rfdetr.errors import CheckpointError

from .models import build_tiny, official_file
from .official import assert_same_entries


@pytest.fixture
def log(caplog):
    """Lines of mmengine's logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger=logger.name)
    yield caplog
    logger.removeHandler(caplog.handler)


def tables(log):
    return [record for record in log.records if ' entries: ' in record.message]


@pytest.fixture
def official(tmp_path):
    path = tmp_path / 'official.pth'
    content = official_file()
    torch.save(content, path)
    return str(path), content['model']


def assert_holds(model, official_state):
    """The model has every tensor of the official state dict."""
    assert_same_entries(to_official(model.state_dict()), official_state)


def by_mmengine(path):
    model = build_tiny()
    load_checkpoint(model, path, strict=True)
    return model


def by_init_cfg(path):
    model = build_tiny(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    return model


def by_torch(path):
    model = build_tiny()
    model.load_state_dict(torch.load(path, weights_only=True)['model'])
    return model


def by_own_function(path):
    model = build_tiny()
    model.load_state_dict(load_checkpoint_file(path)['state_dict'])
    return model


def test_settings_of_the_training_do_not_hinder(official, tmp_path):
    _, state = official
    path = str(tmp_path / 'with_settings.pth')
    torch.save({'model': state, 'args': argparse.Namespace(lr=1e-4)}, path)
    for load in (by_mmengine, by_init_cfg, by_own_function):
        assert_holds(load(path), state)


@pytest.mark.parametrize('load', [by_mmengine, by_init_cfg, by_torch, by_own_function])
def test_an_official_file_loads_as_it_is(official, load, log):
    path, state = official
    assert_holds(load(path), state)
    assert [r.message for r in tables(log)] == [
        f'Official RF-DETR checkpoint, {len(state)} entries: all fit'
    ]
    assert not [r for r in log.records if r.levelno >= logging.WARNING]


def test_a_lightning_checkpoint_of_a_compiled_model_loads(official, tmp_path):
    _, state = official
    path = tmp_path / 'last.ckpt'
    prefixed = {f'model._orig_mod.{name}': value for name, value in state.items()}
    torch.save({'state_dict': prefixed, 'hyper_parameters': {'num_queries': 5}}, path)
    model = build_tiny(num_queries=4)
    load_checkpoint(model, str(path), strict=True)
    rows = state['query_feat.weight'].view(3, 5, 16)
    assert torch.equal(model.query_embedding, rows[:, :4])


def test_the_numbers_in_a_file_reach_the_model(official, tmp_path):
    """Known queries are cut by group; without the numbers flat."""
    path, state = official
    model = build_tiny(num_queries=4)
    rows = state['query_feat.weight']
    load_checkpoint(model, path)
    assert torch.equal(model.query_embedding, rows.view(3, 5, 16)[:, :4])
    model.load_state_dict(state)
    assert torch.equal(model.query_embedding, rows[:12].view(3, 4, 16))


def test_other_sizes_are_fitted_and_listed(official, log):
    path, state = official
    model = build_tiny(**{'bbox_head.num_classes': 3, 'backbone.pos_embed_size': 4})
    load_checkpoint(model, path, strict=True)
    assert torch.equal(model.bbox_head.fc_cls.bias, state['class_embed.bias'][:3])
    (table,) = tables(log)
    assert '5 reshaped' in table.message
    assert table.levelno == logging.INFO


def test_missing_entries_are_a_warning(official, log):
    _, state = official
    model = build_tiny()
    before = model.decoder.norm.bias.clone()
    model.load_state_dict(
        {k: v for k, v in state.items() if k != 'transformer.decoder.norm.bias'},
        strict=False,
    )
    assert torch.equal(model.decoder.norm.bias, before)
    (table,) = tables(log)
    assert table.levelno == logging.WARNING
    assert table.message.endswith('missing  decoder.norm.bias')


def test_a_strict_load_stays_strict(official):
    _, state = official
    with pytest.raises(RuntimeError, match='Unexpected key.*strange'):
        build_tiny().load_state_dict({**state, 'strange': torch.zeros(1)})


@pytest.mark.parametrize('strict', [True, False])
def test_another_variant_is_refused(official, strict):
    path, _ = official
    model = build_tiny(**{'decoder.num_layers': 3})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match='another variant'):
        load_checkpoint(model, path, strict=strict)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize('strict', (True, False))
def test_own_weights_of_fewer_layers_are_refused(strict):
    small, large = build_tiny(), build_tiny(**{'decoder.num_layers': 3})
    with pytest.raises(CheckpointError, match='decoder layers 2 .model: 3.'):
        large.load_state_dict(small.state_dict(), strict=strict)
    # A part is loaded as before.
    part = {k: v for k, v in small.state_dict().items() if k.startswith('backbone.')}
    assert large.load_state_dict(part, strict=False).missing_keys


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), path)
    with pytest.raises(CheckpointError, match='no RF-DETR checkpoint'):
        load_checkpoint(build_tiny(), str(path))


def test_own_checkpoints_load_without_a_word(log):
    source = build_tiny()
    target = build_tiny()
    target.load_state_dict(source.state_dict())
    target.load_state_dict({}, strict=False)
    part = {'decoder.norm.bias': torch.ones(16)}
    target.load_state_dict(part, strict=False)
    assert torch.equal(target.decoder.norm.bias, torch.ones(16))
    assert not tables(log)


def test_own_checkpoints_of_other_sizes_are_fitted(official, log):
    source = build_tiny()
    source.load_state_dict(official[1])
    target = build_tiny(num_queries=2, num_groups=2, **{'bbox_head.num_classes': 9})
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.query_embedding, source.query_embedding[:2, :2])
    assert torch.equal(
        target.bbox_head.fc_cls.bias[7:], source.bbox_head.fc_cls.bias[:2]
    )
    assert tables(log)[-1].message.startswith('RF-DETR checkpoint')


@pytest.fixture
def convolution():
    """A backbone of one layer, registered as one of a user is."""

    class Convolution(nn.Conv2d):
        def forward(self, x):
            return [super().forward(x)] * 4

    MODELS.register_module(module=Convolution)
    yield dict(
        type='Convolution', in_channels=3, out_channels=8, kernel_size=4, stride=4
    )
    MODELS.module_dict.pop('Convolution')


def test_own_checkpoints_with_another_backbone_are_fitted(convolution, log):
    trained = build_tiny(backbone=convolution)
    model = build_tiny(
        backbone=convolution, num_groups=2, **{'bbox_head.num_classes': 3}
    )
    model.load_state_dict(trained.state_dict())
    weights = trained.bbox_head.fc_cls.weight[:3], trained.backbone.weight
    assert model.bbox_head.fc_cls.weight.equal(weights[0])
    assert model.backbone.weight.equal(weights[1])
    assert 'reshaped' in tables(log)[0].message


@pytest.mark.parametrize('reverse', (False, True))
def test_weights_of_another_backbone_are_refused(convolution, reverse):
    models = [build_tiny(), build_tiny(backbone=convolution)]
    target, source = reversed(models) if reverse else models
    with pytest.raises(CheckpointError, match='another variant.*vit width'):
        target.load_state_dict(source.state_dict())


def test_the_loaded_state_dict_is_left_alone(official):
    _, state = official
    before = dict(state)
    build_tiny(num_queries=4).load_state_dict(state)
    assert state.keys() == before.keys()
    assert all(state[name] is before[name] for name in state)


def test_a_copy_of_the_model_adapts_to_its_own_sizes(official):
    """As for a moving average, which is a copy with a prefix."""
    _, state = official
    model = build_tiny()
    average = ExponentialMovingAverage(model)
    average.module.reference_embedding = nn.Parameter(torch.zeros(3, 2, 4))
    average.module.query_embedding = nn.Parameter(torch.zeros(3, 2, 16))
    average.module.load_state_dict(state)
    assert average.module.query_embedding.shape == (3, 2, 16)
    prefixed = {f'module.{name}': value for name, value in state.items()}
    average.load_state_dict({**prefixed, 'steps': torch.tensor(0)})
    assert torch.equal(
        average.module.decoder.norm.bias, state['transformer.decoder.norm.bias']
    )


def test_a_model_with_the_hooks_can_be_pickled(official):
    _, state = official
    model = pickle.loads(pickle.dumps(build_tiny()))
    model.load_state_dict(state)
    assert_holds(model, state)


def test_a_position_table_is_resized_once(official, monkeypatch):
    from mmdet_rfdetr.checkpoints import fit

    calls = []
    original = fit.resize_position_table
    monkeypatch.setattr(
        fit,
        'resize_position_table',
        lambda *args: calls.append(args) or original(*args),
    )
    build_tiny(**{'backbone.pos_embed_size': 4}).load_state_dict(official[1])
    assert len(calls) == 1
