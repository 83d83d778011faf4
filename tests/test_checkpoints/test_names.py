import pytest
import torch

from mmdet_rfdetr.checkpoints import from_official, to_official
from mmdet_rfdetr.checkpoints.names import is_official, is_own
from mmdet_rfdetr.errors import CheckpointError
from tests import fixtures

from .official import (
    VARIANTS,
    VIT,
    assert_same_entries,
    official_shapes,
    official_sizes,
    official_state,
)


@fixtures.needs_fixtures
@pytest.mark.parametrize('case', ['nano', 'medium', 'seg_nano'])
def test_the_description_of_official_files_is_right(case):
    recorded = {
        entry['name']: tuple(entry['shape'])
        for entry in fixtures.load_json(f'{case}/params')
    }
    assert official_shapes(**VARIANTS[case.replace('_', '-')]) == recorded


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_name_of_every_variant_goes_there_and_back(variant):
    official = official_sizes(**VARIANTS[variant])
    own = from_official(official)
    assert not set(own) & set(official), 'an official name was not translated'
    back = {name: (v.shape, v.dtype) for name, v in to_official(own).items()}
    assert back == {name: (v.shape, v.dtype) for name, v in official.items()}


@pytest.mark.parametrize(
    'sizes',
    [
        {},
        dict(levels=('P3', 'P5'), samples=16),
        dict(num_mask_blocks=2),
        dict(num_groups=1),
    ],
)
def test_every_tensor_comes_back(sizes):
    official = official_state(**sizes)
    assert_same_entries(to_official(from_official(official)), official)


def test_register_tokens_and_half_precision_come_back():
    official = official_state()
    official[VIT + 'embeddings.register_tokens'] = torch.randn(1, 4, 8).half()
    assert 'backbone.register_tokens' in from_official(official)
    assert_same_entries(to_official(from_official(official)), official)


def test_packed_and_stacked_entries_hold_their_parts_in_order():
    official = official_state()
    own = from_official(official)
    attention = VIT + 'encoder.layer.5.attention.attention.'
    for index, part in enumerate(('query', 'key', 'value')):
        rows = slice(8 * index, 8 * (index + 1))
        for kind in ('weight', 'bias'):
            torch.testing.assert_close(
                own[f'backbone.blocks.5.attn.qkv.{kind}'][rows],
                official[f'{attention}{part}.{kind}'],
            )
    assert own['query_selection.fc_reg.2.weight'].shape == (3, 4, 16)
    for group in range(3):
        torch.testing.assert_close(
            own['query_selection.fc_reg.2.weight'][group],
            official[f'transformer.enc_out_bbox_embed.{group}.layers.2.weight'],
        )
        # Group g owns the rows g * Q to (g + 1) * Q - 1.
        torch.testing.assert_close(
            own['query_embedding'][group],
            official['query_feat.weight'][5 * group : 5 * (group + 1)],
        )


def test_groups_may_come_in_any_order():
    official = official_state(num_groups=12)
    backwards = dict(sorted(official.items(), reverse=True))
    assert_same_entries(from_official(backwards), from_official(official))


def test_exported_tensors_share_no_storage():
    exported = to_official(from_official(official_state()))
    storages = [v.untyped_storage().data_ptr() for v in exported.values() if v.numel()]
    assert len(set(storages)) == len(storages)


def test_a_file_with_a_hole_is_refused_with_the_hole():
    official = official_state()
    del official['transformer.enc_output.1.weight']
    with pytest.raises(
        CheckpointError, match=r"'query_selection.fc.weight' it lacks 1"
    ):
        from_official(official)
    official = official_state()
    del official[VIT + 'encoder.layer.3.attention.attention.key.bias']
    with pytest.raises(CheckpointError, match=r'blocks.3.attn.qkv.bias.* lacks key'):
        from_official(official)


def test_a_keypoint_mask_that_says_something_is_not_dropped():
    mask = torch.ones(1, 17).bool()
    kept = from_official({**official_state(), '_kp_active_mask': mask})
    assert any(value is mask for value in kept.values())


def test_formats_are_told_apart():
    official = official_state()
    own = from_official(official)
    detr = ['transformer.encoder.layers.0.norm1.weight', 'class_embed.weight']
    assert (is_official(official), is_own(official)) == (True, False)
    assert (is_official(own), is_own(own)) == (False, True)
    assert (is_official(detr), is_own(detr)) == (False, False)


def test_official_files_with_adapters_are_official():
    inner, wrap = 'backbone.0.encoder.', 'backbone.0.encoder.base_model.model.'
    names = [name.replace(inner, wrap, 1) for name in official_state()]
    assert sum(name.startswith(wrap) for name in names) > 10
    assert is_official(names)
