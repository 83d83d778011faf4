"""The seven segmentation configs: sizes, checkpoint names, pipelines."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from mmdet_rfdetr.checkpoints import from_official, to_official
from mmdet_rfdetr.data.sizes import multi_scale_sizes

# From the official package 1.11.2: parameters with 91 logits, entries of the state
# dict, input size, multi-scale sizes (first, last, step), queries, decoder layers.
VARIANTS = {
    'preview': (34_153_555, 545, 432, (312, 552, 24), 200, 4),
    'nano': (33_577_475, 545, 312, (252, 372, 12), 100, 4),
    'small': (33_711_107, 545, 384, (264, 504, 24), 100, 4),
    'medium': (35_694_259, 573, 432, (312, 552, 24), 200, 5),
    'large': (35_873_971, 573, 504, (384, 624, 24), 200, 5),
    'xlarge': (38_113_635, 601, 624, (504, 744, 24), 300, 6),
    '2xlarge': (38_648_163, 601, 768, (648, 888, 24), 300, 6),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    cfg = Config.fromfile(config(f'rfdetr-seg_{request.param}_coco.py'))
    init_default_scope('mmdet')
    return cfg, *VARIANTS[request.param]


@pytest.fixture
def model(variant):
    """The official model's sizes, without numbers in its parameters."""
    cfg = variant[0].model
    cfg.bbox_head.num_classes = 91
    cfg.precision = None
    with torch.device('meta'):
        return MODELS.build(cfg)


def test_size_of_the_model(variant, model):
    _, parameters, entries, image_size, _, queries, layers = variant
    # The mask token is a parameter there and a buffer here.
    ours = sum(p.numel() for p in model.parameters())
    assert ours + model.backbone.mask_token.numel() == parameters
    official = to_official(model.state_dict())
    assert len(official) == entries
    assert model.num_queries == model.bbox_head.test_cfg['max_per_img'] == queries
    assert len(model.decoder.layers) == len(model.mask_head.blocks) == layers
    side = image_size // model.backbone.patch_size
    assert model.backbone.pos_embed.shape[1] == 1 + side**2


def test_names_go_to_official_ones_and_back(model):
    ours = model.state_dict()
    official = to_official(ours)
    assert sum(name.startswith('segmentation_head.') for name in official) == sum(
        name.startswith('mask_head.') for name in ours
    )
    back = from_official(official)
    assert {name: value.shape for name, value in back.items()} == {
        name: value.shape for name, value in ours.items()
    }


def test_input_sizes(variant):
    cfg, _, _, image_size, (first, last, step), _, _ = variant
    backbone = cfg.model.backbone
    divisor = backbone.patch_size * backbone.num_windows
    assert cfg.model.data_preprocessor.pad_size_divisor == step == divisor
    scale = cfg.model.data_preprocessor.batch_augments[0]
    sizes = multi_scale_sizes(scale.image_size, scale.size_divisor, range(-5, 6))
    assert list(sizes) == list(range(first, last + 1, step))
    assert image_size == scale.image_size


def test_masks_are_loaded_and_evaluated(variant):
    cfg = variant[0]
    for loader in ('train', 'val', 'test'):
        pipeline = cfg[f'{loader}_dataloader'].dataset.pipeline
        (loading,) = (step for step in pipeline if 'LoadAnnotations' in step.type)
        assert loading.with_mask
        assert loading.with_bbox
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert evaluator.metric == ['bbox', 'segm']
    assert cfg.default_hooks.checkpoint.save_best == 'coco/segm_mAP'


@pytest.mark.parametrize('name', ['nano', 'medium'])
def test_weights_go_to_an_official_file_and_back(name):
    cfg = Config.fromfile(config(f'rfdetr-seg_{name}_coco.py')).model
    init_default_scope('mmdet')
    cfg.bbox_head.num_classes = 91
    first, second = MODELS.build(cfg), MODELS.build(cfg)
    official = to_official(first.state_dict())
    second.load_state_dict(dict(official))
    again = to_official(second.state_dict())
    assert again.keys() == official.keys()
    for key, value in official.items():
        assert again[key].equal(value), key
