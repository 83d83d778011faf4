"""DINOv2 files, in all their names."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.checkpoints import from_official
from mmdet_rfdetr.errors import CheckpointError

from ..test_checkpoints.models import build_tiny, tiny_config
from ..test_checkpoints.official import VIT, official_state


def huggingface(prefix='', **sizes):
    vit = 'backbone.0.encoder.encoder.'
    return {
        prefix + name.removeprefix(vit): value
        for name, value in official_state(**sizes).items()
        if name.startswith(vit)
    }


def short_names(**sizes):
    """As transformers 5 keeps them in memory."""
    renamed = {}
    for name, value in huggingface(**sizes).items():
        for long, short in (
            ('attention.query', 'q_proj'),
            ('attention.key', 'k_proj'),
            ('attention.value', 'v_proj'),
            ('output.dense', 'o_proj'),
        ):
            name = name.replace(long, short)
        renamed[name] = value
    return renamed


def dinov2(**sizes):
    """The original names."""
    own = from_official(official_state(**sizes))
    renamed = {}
    for name, value in own.items():
        if name.startswith('backbone.'):
            name = name.removeprefix('backbone.')
            name = name.replace('patch_embed.', 'patch_embed.proj.')
            for index in (1, 2):
                name = name.replace(f'.layer_scale{index}', f'.ls{index}.gamma')
            renamed[name] = value
    return renamed


FILES = pytest.mark.parametrize(
    'file',
    [dinov2, huggingface, lambda: huggingface('dinov2.'), short_names],
    ids=['original', 'hugging-face', 'classifier', 'transformers-5'],
)


@FILES
def test_a_backbone_takes_every_dinov2_file(file):
    backbone = MODELS.build(tiny_config()['backbone'])
    backbone.load_state_dict(file())
    own = from_official(official_state())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, own['backbone.' + name]), name


@FILES
def test_a_detector_asks_for_them_in_the_place_of_its_backbone(file):
    with pytest.raises(CheckpointError, match='model.backbone.init_cfg'):
        build_tiny().load_state_dict(file())


@pytest.mark.parametrize('file', [dinov2, huggingface])
def test_sizes_are_fitted(file, tmp_path):
    path = tmp_path / 'dinov2.pth'
    torch.save(file(), path)
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    sizes = dict(patch_size=6, pos_embed_size=5, init_cfg=pretrained)
    backbone = MODELS.build({**tiny_config()['backbone'], **sizes})
    backbone.init_weights()
    weight = backbone.blocks[7].attn.qkv.weight
    own = from_official(official_state())
    assert torch.equal(weight, own['backbone.blocks.7.attn.qkv.weight'])
    images = torch.randn(1, 3, 30, 30)
    assert all(torch.isfinite(x).all() for x in backbone(images))


def test_the_backbone_of_a_detector_loads_dinov2_weights(tmp_path):
    path = tmp_path / 'dinov2.pth'
    torch.save(huggingface(), path)
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    model = build_tiny(**{'backbone.init_cfg': pretrained})
    model.init_weights()
    token = official_state()[VIT + 'embeddings.cls_token']
    assert torch.equal(model.backbone.cls_token, token)
