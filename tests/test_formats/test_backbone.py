"""Checkpoints of backbones alone, and of images of other channels."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from mmdet_rfdetr.checkpoints import from_official
from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.formats.backbone import fit_backbone
from mmdet_rfdetr.formats.patch_kernel import fit_patch_kernel, resample_patch_kernel

from ..test_checkpoints.models import tiny_config
from ..test_checkpoints.official import VIT, official_state
from ..test_checkpoints.test_fit import model_of, reshaped
from ..test_checkpoints.test_hooks import official  # noqa: F401  a fixture


def test_patch_kernel_for_grey_images_is_the_mean():
    kernel = torch.randn(2, 3, 4, 4)
    grey = fit_patch_kernel(kernel, (2, 1, 4, 4))[0]
    torch.testing.assert_close(grey[:, 0], kernel.mean(1))


def test_patch_kernel_for_more_channels_repeats_rgb():
    kernel = torch.randn(2, 3, 4, 4)
    more = fit_patch_kernel(kernel, (2, 4, 4, 4))[0]
    torch.testing.assert_close(more, kernel[:, [0, 1, 2, 0]] * 0.75)


def test_patch_kernel_of_other_channels_is_refused():
    with pytest.raises(CheckpointError, match='4 channels, the model of 3'):
        fit_patch_kernel(torch.zeros(2, 4, 4, 4), (2, 3, 4, 4))


def backbone_of(state):
    return {
        name.removeprefix('backbone.'): value
        for name, value in state.items()
        if name.startswith('backbone.')
    }


def vit(**sizes):
    """A ViT alone."""
    return backbone_of(from_official(official_state(**sizes)))


@pytest.mark.parametrize(
    'file',
    [
        official_state,
        lambda: from_official(official_state()),
        lambda: {f'student.{name}': value for name, value in vit().items()},
    ],
    ids=['official', 'own', 'within another model'],
)
def test_a_backbone_is_found_in_every_file(file):
    entries, report = fit_backbone(file(), backbone_of(model_of()))
    own = vit()
    assert set(entries) == set(own)
    assert all(torch.equal(entries[name], value) for name, value in own.items())
    assert not (report.reshaped or report.missing or report.unexpected)


def test_patch_kernel_and_position_table_are_resampled():
    entries, report = fit_backbone(vit(), backbone_of(model_of(patch_size=6, grid=5)))
    assert reshaped(report) == {
        'pos_embed': ((1, 10, 8), (1, 26, 8)),
        'patch_embed.weight': ((8, 3, 4, 4), (8, 3, 6, 6)),
    }
    assert entries['patch_embed.weight'].shape == (8, 3, 6, 6)
    assert 'patch kernel resampled' in str(report)


@pytest.mark.parametrize(
    ('sizes', 'text'),
    [
        (dict(vit_width=12), 'has the shape .*8.* needs .*12'),
        (dict(num_blocks=13), '12 blocks, the model needs 13'),
    ],
)
def test_a_backbone_of_another_size_is_refused(sizes, text):
    with pytest.raises(CheckpointError, match=text):
        fit_backbone(official_state(), backbone_of(model_of(**sizes)))


def test_registers_that_the_backbone_lacks_are_listed():
    state = {**vit(), 'register_tokens': torch.zeros(1, 4, 8)}
    _, report = fit_backbone(state, backbone_of(model_of()))
    assert report.unexpected == ['register_tokens']


def test_a_missing_mask_token_is_no_matter():
    state = official_state()
    del state['backbone.0.encoder.encoder.embeddings.mask_token']
    entries, report = fit_backbone(state, backbone_of(model_of()))
    assert entries['mask_token'].shape == (1, 8)
    assert not report.missing


def test_a_file_without_a_vit_is_refused():
    with pytest.raises(CheckpointError, match='no DINOv2 backbone, .* conv1.weight'):
        fit_backbone({'conv1.weight': torch.zeros(2)}, backbone_of(model_of()))


def tokens(patches, kernel):
    return F.conv2d(patches, kernel).flatten(1)


@pytest.mark.parametrize('side', [12, 14, 16, 20])
def test_kernel_of_the_same_size_is_itself(side):
    kernel = torch.randn(3, 3, side, side)
    assert resample_patch_kernel(kernel, side) is kernel


@pytest.mark.parametrize(('side', 'size'), [(14, 16), (14, 20), (6, 7), (2, 9)])
def test_larger_kernel_gives_the_same_tokens_for_resized_patches(side, size):
    torch.manual_seed(0)
    kernel = torch.randn(5, 3, side, side, dtype=torch.float64)
    patches = torch.randn(8, 3, side, side, dtype=torch.float64)
    resized = F.interpolate(patches, size=(size, size), mode='bilinear')
    larger = resample_patch_kernel(kernel, size)
    assert larger.shape == (5, 3, size, size)
    torch.testing.assert_close(tokens(resized, larger), tokens(patches, kernel))


def test_smaller_kernel_is_the_least_squares_solution():
    """No kernel does better on white noise; plain resizing does worse."""
    torch.manual_seed(0)
    kernel = torch.randn(4, 1, 14, 14, dtype=torch.float64)
    patches = torch.randn(4000, 1, 14, 14, dtype=torch.float64)
    resized = F.interpolate(patches, size=(12, 12), mode='bilinear')
    wanted = tokens(patches, kernel)

    def error(candidate):
        return (tokens(resized, candidate) - wanted).square().mean()

    smaller = resample_patch_kernel(kernel, 12)
    plain = F.interpolate(kernel, size=(12, 12), mode='bilinear')
    assert error(smaller) < 0.8 * error(plain * (14 / 12) ** 2)
    fitted = torch.linalg.lstsq(resized.flatten(1), wanted).solution
    best = error(fitted.T.reshape(4, 1, 12, 12))
    assert error(smaller) < 1.05 * best  # the best one overfits these patches


def test_kernel_keeps_its_dtype():
    assert resample_patch_kernel(torch.randn(2, 3, 4, 4).half(), 6).dtype == torch.half


def build_backbone(**changes):
    return MODELS.build({**tiny_config()['backbone'], **changes})


def test_a_backbone_takes_its_part_of_an_official_file(official):  # noqa: F811
    path, state = official
    backbone = build_backbone()
    load_checkpoint(backbone, path, strict=True)
    assert torch.equal(backbone.cls_token, state[VIT + 'embeddings.cls_token'])


def test_a_backbone_within_another_model_loads_its_own_weights():
    source = nn.ModuleDict({'backbone': build_backbone(), 'head': nn.Linear(2, 2)})
    target = nn.ModuleDict(
        {'backbone': build_backbone(pos_embed_size=4), 'head': nn.Linear(2, 2)}
    )
    target.load_state_dict(source.state_dict())
    assert torch.equal(
        target['backbone'].blocks[0].norm1.weight,
        source['backbone'].blocks[0].norm1.weight,
    )


def test_a_file_without_a_backbone_is_refused():
    with pytest.raises(CheckpointError, match='no DINOv2 backbone'):
        build_backbone().load_state_dict({'conv1.weight': torch.zeros(1)})
