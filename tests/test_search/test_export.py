"""A sub-net inside the super-net and its export: the same model, bit for bit."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_rfdetr.search import Subnet
from mmdet_rfdetr.search.export import subnet_config, subnet_weights
from mmdet_rfdetr.search.supernet import set_subnet
from tests import factory
from tests.test_search.test_supernet import HOME, SPACE

# Patches 2, 5 and 8 are never drawn; 3 tokens a side are fewer than queries.
TRIPLES = (
    *((24, 3, 1), (24, 3, 2), (24, 3, 4), (32, 4, 1), (32, 4, 2), (40, 4, 2)),
    *((48, 6, 1), (48, 6, 2), (48, 6, 4), (24, 2, 2), (30, 5, 2), (40, 5, 1)),
    *((24, 8, 1), (32, 8, 2)),
)
GRID = [
    Subnet(*triple, layers, queries)
    for triple in TRIPLES
    for layers, queries in ((0, 3), (0, 6), (1, 2), (1, 6), (2, 5), (2, 6))
]


def config(**changes):
    return Config(dict(model=factory.model_config(search_space=SPACE, **changes)))


def export(model, cfg, subnet):
    """The model of the exported config with the exported weights."""
    exported = MODELS.build(subnet_config(cfg, subnet).model)
    exported.load_state_dict(subnet_weights(model.state_dict(), subnet))
    return exported.eval()


def outputs(model, side, batch=1):
    """Logits and boxes of every stage, and detections, of random images."""
    torch.manual_seed(side)
    images = torch.randint(256, (batch, 3, side, side)).float()
    samples = factory.batch((0,) * batch)['data_samples']
    for sample in samples:
        sizes = dict.fromkeys(
            ('img_shape', 'ori_shape', 'batch_input_shape'), (side,) * 2
        )
        sample.set_metainfo(sizes)
    with torch.no_grad():
        raw = model(images, samples, mode='tensor')
        found = [x.pred_instances for x in model(images, samples, mode='predict')]
    stages = [raw, *raw['aux_outputs'], raw['enc_outputs']]
    tensors = [
        stage[key] for stage in stages for key in stage if torch.is_tensor(stage[key])
    ]
    tensors += [x[key] for x in found for key in ('bboxes', 'scores', 'labels')]
    return [*tensors, *(x.masks for x in found if 'masks' in x)]


def same(model, exported, side):
    pairs = zip(outputs(model, side), outputs(exported, side), strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def unequal(precision, grid):
    """Names of the sub-nets that differ from their exports."""
    cfg = config(precision=precision)
    model = factory.build_model(search_space=SPACE, precision=precision).eval()
    names = []
    for subnet in grid:
        set_subnet(model, subnet)
        if not same(model, export(model, cfg, subnet), subnet.image_size):
            names.append(subnet.name)
    return names


LOW = dict(device_type='cpu', dtype='bfloat16')


def test_sub_nets_equal_their_exports():
    assert len(GRID) >= 60
    assert unequal(None, GRID) == []


def test_sub_nets_in_low_precision_equal_their_exports():
    assert unequal(LOW, GRID[::7]) == []


@pytest.mark.long
def test_all_sub_nets_in_low_precision_equal_their_exports():
    assert unequal(LOW, GRID) == []


def test_sub_nets_are_models_of_their_own():
    """What the grid compares depends on all five numbers."""
    model = factory.build_model(search_space=SPACE).eval()
    seen = {}
    for subnet in GRID[::5]:
        set_subnet(model, subnet)
        seen[subnet] = outputs(model, subnet.image_size)[0].sum().item()
    assert len({*seen.values()}) == len(seen)


@pytest.mark.parametrize('layers', [0, 1, 2])
def test_masks_of_sub_nets_equal_their_exports(layers):
    masks = {
        'mask_head': dict(type='RFDETRMaskHead', downsample_ratio=4),
        'bbox_head.loss_mask': dict(
            type='RFDETRPointMaskLoss', mask_weight=5.0, dice_weight=5.0
        ),
    }
    model = factory.build_model(search_space=SPACE, **masks).eval()
    subnet = Subnet(24, 3, 2, layers, 5)
    set_subnet(model, subnet)
    exported = export(model, config(**masks), subnet)
    assert len(exported.mask_head.blocks) == layers
    assert same(model, exported, 24)


def test_an_export_says_its_sizes_everywhere():
    cfg = config()
    cfg.image_size = 32
    cfg.train_dataloader = cfg.val_dataloader = dict(
        dataset=dict(pipeline=[dict(type='RFDETRResize', image_size=32)])
    )
    cfg.model.data_preprocessor.batch_augments = [dict(type='RFDETRBatchSubnetSize')]
    cfg.default_hooks = dict(
        subnet=dict(type='RFDETRSubnetHook'),
        checkpoint=dict(save_best='search/bbox_mAP'),
    )
    cfg.val_cfg = dict(type='RFDETRSubnetValLoop', val_subnets=['largest'])
    exported = subnet_config(cfg, Subnet(24, 3, 4, 0, 5))
    model = exported.model
    assert 'search_space' not in model and 'search_space' in cfg.model
    backbone = model.backbone
    assert (backbone.patch_size, backbone.num_windows) == (3, 4)
    assert (backbone.pos_embed_size, model.num_queries) == (8, 5)
    assert model.decoder.num_layers == 0
    assert model.data_preprocessor.pad_size_divisor == 12
    assert model.data_preprocessor.batch_augments is None
    assert exported.image_size == 24
    for loader in (exported.train_dataloader, exported.val_dataloader):
        assert loader.dataset.pipeline[0].image_size == 24
    assert exported.default_hooks == dict(checkpoint=dict(save_best='coco/bbox_mAP'))
    assert exported.val_cfg == dict(type='ValLoop')
    assert exported.find_unused_parameters


def test_the_home_of_a_space_is_exported_as_it_is():
    model = factory.build_model(search_space=SPACE)
    before = model.state_dict()
    weights = subnet_weights(before, HOME)
    assert before.keys() == weights.keys()
    assert all(torch.equal(before[name], weights[name]) for name in before)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_sub_net_of_nano_equals_its_export(dtype):
    import mmdet_rfdetr

    cfg = Config.fromfile(mmdet_rfdetr.config('rfdetr_nano_coco.py'))
    cfg.model.precision = dict(device_type='cpu', dtype=dtype)
    if dtype == 'float32':
        cfg.model.precision = None
    cfg.model.search_space = dict(
        image_sizes=[320, 384],
        patch_sizes=[12, 16],
        num_windows=[1, 2],
        num_layers=[0, 1, 2],
        num_queries=[100, 300],
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for subnet in (Subnet(336, 12, 2, 1, 100), Subnet(320, 20, 4, 2, 256)):
        set_subnet(model, subnet)
        assert same(model, export(model, cfg, subnet), subnet.image_size)
