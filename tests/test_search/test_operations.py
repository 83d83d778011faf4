"""Operations and parameters by formula, beside what real modules count."""

import itertools

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import mmdet_rfdetr
from mmdet_rfdetr.errors import SettingError
from mmdet_rfdetr.search import SearchSpace
from mmdet_rfdetr.search.operations import Operations
from tests.factory import build_model
from tests.test_search.test_space import PAPER


def counted(model, size):
    """Operations of a prediction, fused attention taken apart."""
    model.eval().requires_grad_(False)
    shape = dict(img_shape=(size, size), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=shape)]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 3, size, size), samples, mode='predict')
    return counter.get_total_flops()


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'decoder.num_layers': 0},
        {'neck.scales': ('P3', 'P5'), 'backbone.num_registers': 2},
        {'backbone.num_windows': 1, 'backbone.patch_size': 8, 'num_queries': 5},
    ],
)
def test_the_formula_is_what_the_modules_do(changes):
    model = build_model(**changes)
    backbone, layers = model.backbone, len(model.decoder.layers)
    knobs = backbone.patch_size, backbone.num_windows, layers, model.num_queries
    operations = Operations(model)
    for size in (32, 48):
        assert operations.of((size, *knobs)) == counted(model, size)


def test_parameters_are_those_of_the_model_of_a_sub_net():
    operations = Operations(build_model())
    knobs = {
        'backbone.patch_size': 8,
        'decoder.num_layers': 1,
        'num_queries': 5,
        'backbone.pos_embed_size': 6,
    }
    alone = build_model(**knobs)
    count = sum(parameter.numel() for parameter in alone.parameters())
    assert operations.parameters((48, 8, 2, 1, 5)) == count


def of_shipped(name, **decoder):
    cfg = Config.fromfile(mmdet_rfdetr.config(f'rfdetr_{name}_coco.py'))
    cfg.model.decoder.update(decoder)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return cfg, Operations(MODELS.build(cfg.model))


@pytest.mark.parametrize(
    ('name', 'published'), [('nano', 31.7), ('small', 60), ('medium', 79)]
)
def test_the_published_figures_come_out(name, published):
    cfg, operations = of_shipped(name)
    layers = cfg.model.decoder.num_layers
    found = operations.of((cfg.image_size, 16, 2, layers, 300)) / 1e9
    assert found == pytest.approx(published, rel=0.012)


def test_shared_evaluation_takes_a_twentieth_on_the_grid_of_the_paper():
    operations = of_shipped('medium', num_layers=6)[1]
    space = SearchSpace(**PAPER, max_tokens=120 * 120)
    subnets = [*space.subnets()]
    separate = sum(map(operations.of, subnets))
    shared = sum(
        operations.shared([x for x in subnets if x[:3] == each])
        for each in space.triples
    )
    assert 25 < separate / shared < 28
    home = operations.of((576, 16, 2, 6, 300))
    means = {}
    for most in (120 * 120, 3600, 2500, 1600):
        triples = SearchSpace(**PAPER, max_tokens=most).triples
        total = sum(operations.of((*each, 6, 300)) for each in triples)
        means[most] = total / len(triples) / home
    assert list(means.values()) == pytest.approx([3.9, 1.17, 0.85, 0.64], rel=0.04)


def test_sharing_is_what_the_parts_of_the_sub_nets_add_up_to():
    operations = Operations(build_model())
    triple, depths, counts = (32, 4, 2), (0, 1, 2), (3, 6)
    keys = [*itertools.product(depths, counts)]
    together = operations.shared([(*triple, *key) for key in keys])
    alone = {key: operations.of((*triple, *key)) for key in keys}
    trunk = operations.trunk(*triple)
    # The first layer of each run is there once, and is counted alone for both depths.
    again = sum(operations.layer(count, 8) for count in counts)
    positions = sum(
        alone[1, n] - alone[0, n] - operations.layer(n, 8) - heads
        for n in counts
        for heads in [alone_heads(operations, n)]
    )
    selections = sum(alone[0, n] - trunk for n in counts)
    surplus = 5 * trunk + again + positions + 2 * selections
    assert sum(alone.values()) - together == surplus


def alone_heads(operations, count):
    """Operations of the box head for so many queries, from two depths of one run."""
    two = operations.shared([(32, 4, 2, depth, count) for depth in (1, 2)])
    return two - operations.of((32, 4, 2, 2, count))


def test_a_neck_of_somebody_else_is_refused():
    neck = dict(type='ChannelMapper', in_channels=[16, 16], out_channels=16)
    model = build_model(**{'neck': neck, 'decoder.num_levels': 2})
    with pytest.raises(SettingError, match='ChannelMapper'):
        Operations(model)
