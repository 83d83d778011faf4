"""The four keypoint configs: sizes, and names of checkpoints."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_rfdetr import config
from mmdet_rfdetr.checkpoints import from_official, to_official
from mmdet_rfdetr.data.sizes import multi_scale_sizes

# Parameters with 2 logits, entries of the official state dict, input size, patch size,
# decoder layers, multi-scale sizes (first, last, step). Those of Preview are from the
# official package 1.11.2; the others are the detection variant's but for the points.
VARIANTS = {
    'preview': (40_724_248, 736, 576, 12, 4, (456, 696, 24)),
    'nano': (None, 642, 384, 16, 2, (224, 544, 32)),
    'small': (None, 689, 512, 16, 3, (352, 672, 32)),
    'medium': (None, 736, 576, 16, 4, (416, 736, 32)),
}


def build(cfg, **head):
    init_default_scope('mmdet')
    cfg.model.precision = None
    cfg.model.bbox_head.update(head)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in ('small', 'medium')]


@pytest.mark.parametrize('variant', ['preview', 'nano', *OTHERS])
def test_sizes(variant):
    cfg = Config.fromfile(config(f'rfdetr-pose_{variant}_coco.py'))
    parameters, entries, image_size, patch_size, layers, scales = VARIANTS[variant]
    model = build(cfg, num_classes=2)
    if parameters is not None:
        # The mask token is a parameter there and a buffer here.
        ours = sum(p.numel() for p in model.parameters())
        assert ours + model.backbone.mask_token.numel() == parameters
    official = to_official(model.state_dict())
    assert len(official) == entries
    assert from_official(official).keys() == model.state_dict().keys()
    assert cfg.image_size == image_size
    assert model.backbone.patch_size == patch_size
    assert len(model.decoder.layers) == layers
    assert len(model.keypoint_head.decoder.layers) == layers
    assert model.num_queries == model.bbox_head.test_cfg['max_per_img'] == 100
    assert model.keypoint_head.schema.counts == (17,)
    assert model.bbox_head.loss_cls.loss_weight == 2.0
    (scale,) = cfg.model.data_preprocessor.batch_augments
    first, last, step = scales
    sizes = multi_scale_sizes(scale.image_size, scale.size_divisor, range(-5, 6))
    assert list(sizes) == list(range(first, last + 1, step))


@pytest.mark.parametrize('variant', ['nano', *OTHERS])
def test_sizes_of_detection_variants(variant):
    """So that their official files are a start: all their parameters are there."""
    pose, plain = (
        build(Config.fromfile(config(f'rfdetr{kind}_{variant}_coco.py')), num_classes=1)
        for kind in ('-pose', '')
    )
    ours = {name: x.shape for name, x in pose.state_dict().items()}
    for name, value in plain.state_dict().items():
        if name not in ('query_embedding', 'reference_embedding'):  # fewer queries
            assert ours.pop(name) == value.shape, name
    assert all('keypoint_head' in name or '_embedding' in name for name in ours)
