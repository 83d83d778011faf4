import pytest
import torch

from mmdet_rfdetr.checkpoints import class_rows, from_official
from mmdet_rfdetr.checkpoints.fit import (
    fit_model,
    fit_query_table,
)
from mmdet_rfdetr.errors import CheckpointError

from .official import official_sizes, official_state


def model_of(**sizes):
    """State dict of a model of this package, without numbers."""
    return from_official(official_sizes(**sizes))


def reshaped(report):
    return {entry.name: (entry.before, entry.after) for entry in report.reshaped}


def test_official_entries_of_the_same_size_all_fit():
    official = official_state()
    entries, report = fit_model(official, model_of(), {})
    assert not (report.reshaped or report.missing or report.unexpected)
    assert str(report) == (
        f'Official RF-DETR checkpoint, {len(official)} entries: all fit'
    )
    for name, value in from_official(official).items():
        assert torch.equal(entries[name], value)


@pytest.mark.parametrize('official', [True, False])
def test_everything_that_can_be_fitted_is_fitted_and_listed(official):
    state = official_state()
    expected = model_of(num_rows=3, num_groups=2, num_queries=4, grid=5)
    said = {'num_queries': 5, 'group_detr': 3}
    entries, report = fit_model(
        state if official else from_official(state), expected, said
    )
    assert {n: v.shape for n, v in entries.items()} == {
        n: v.shape for n, v in expected.items()
    }
    assert not (report.missing or report.unexpected)
    changes = reshaped(report)
    assert changes['bbox_head.fc_cls.weight'] == ((7, 16), (3, 16))
    assert changes['query_selection.fc_cls.bias'] == ((3, 7), (2, 3))
    assert changes['query_selection.fc.weight'] == ((3, 16, 16), (2, 16, 16))
    assert changes['query_embedding'] == ((3, 5, 16), (2, 4, 16))
    assert changes['backbone.pos_embed'] == ((1, 10, 8), (1, 26, 8))
    before = model_of()
    assert set(changes) == {n for n in expected if expected[n].shape != before[n].shape}
    own = from_official(state)
    table = own['reference_embedding']
    assert torch.equal(entries['reference_embedding'], table[:2, :4])
    assert torch.equal(
        entries['query_selection.fc_cls.weight'],
        own['query_selection.fc_cls.weight'][:2, :3],
    )
    assert torch.equal(
        entries['bbox_head.fc_cls.bias'], own['bbox_head.fc_cls.bias'][:3]
    )


def test_coco_rows_are_picked_in_every_class_layer():
    official = official_state(num_rows=91)
    entries, report = fit_model(official, model_of(num_rows=80), {})
    rows = list(class_rows.CATEGORY_IDS)
    for kind in ('weight', 'bias'):
        torch.testing.assert_close(
            entries[f'bbox_head.fc_cls.{kind}'], official[f'class_embed.{kind}'][rows]
        )
        for group in range(3):
            torch.testing.assert_close(
                entries[f'query_selection.fc_cls.{kind}'][group],
                official[f'transformer.enc_out_class_embed.{group}.{kind}'][rows],
            )
    line = str(report).splitlines()[1].split(maxsplit=5)
    assert line == [
        'reshaped',
        'bbox_head.fc_cls.weight',
        '91x16',
        '->',
        '80x16',
        'rows picked by COCO category id',
    ]


def test_own_class_names_keep_a_file_from_being_taken_for_coco():
    official = official_state(num_rows=91)
    info = {'class_names': [f'class {i}' for i in range(90)]}
    entries, _ = fit_model(official, model_of(num_rows=80), info)
    assert torch.equal(
        entries['bbox_head.fc_cls.bias'], official['class_embed.bias'][:80]
    )


@pytest.mark.parametrize(
    ('info', 'first_of_second_group'),
    [
        ({'num_queries': 5, 'group_detr': 3}, 5),
        ({'num_queries': 5}, 5),  # the other number follows
        ({'group_detr': 3}, 5),
        ({'num_queries': 15, 'group_detr': 1}, 4),  # contradicts the encoder's heads
        ({'num_queries': 4}, 4),  # does not divide the table
        ({}, 4),
        ({'num_queries': None, 'group_detr': None}, 4),
    ],
)
def test_queries_are_cut_by_group_if_the_file_says_how_many(
    info, first_of_second_group
):
    official = official_state()
    entries, _ = fit_model(official, model_of(num_queries=4), info)
    rows = official['query_feat.weight']
    assert torch.equal(entries['query_embedding'][0], rows[:4])
    assert torch.equal(entries['query_embedding'][1, 0], rows[first_of_second_group])


@pytest.mark.parametrize('sizes', [dict(num_queries=6), dict(num_groups=4)])
def test_more_queries_or_groups_than_the_file_has_are_refused(sizes):
    with pytest.raises(CheckpointError, match='3 (query )?groups'):
        fit_model(official_state(), model_of(**sizes), {})


@pytest.mark.parametrize('unused', [1, 3])
def test_blocks_that_are_never_run_are_dropped_without_a_word(unused):
    expected = {
        name: shape
        for name, shape in model_of().items()
        if not any(f'blocks.{12 - n}.' in name for n in range(1, unused + 1))
    }
    entries, report = fit_model(official_state(), expected, {})
    assert set(entries) == set(expected)
    assert str(report).endswith('all fit')


def test_a_shallower_vit_is_refused():
    with pytest.raises(CheckpointError, match='ViT of 11 blocks, the model needs 12'):
        fit_model(official_state(num_blocks=11), model_of(), {})


def test_missing_and_unexpected_entries_are_listed():
    official = official_state()
    del official['transformer.decoder.norm.bias']
    for layer in (0, 1):
        del official[f'transformer.decoder.layers.{layer}.norm2.weight']
    official['something.else'] = torch.zeros(2)
    entries, report = fit_model(official, model_of(), {})
    assert 'something.else' in entries, 'a strict load must still see it'
    missing = [f'decoder.layers.{layer}.norm2.weight' for layer in (0, 1)]
    assert set(report.missing) == {*missing, 'decoder.norm.bias'}
    assert report.unexpected == ['something.else']
    assert str(report).splitlines()[0].endswith('3 missing, 1 unexpected')


@pytest.mark.parametrize(
    ('sizes', 'text'),
    [
        (dict(num_layers=3), r'decoder layers 3 \(model: 2\)'),
        (dict(num_layers=1), r'decoder layers 1 \(model: 2\)'),
        (dict(patch_size=5), r'patch size 5 \(model: 4\)'),
        (dict(vit_width=12), r'vit width 12 \(model: 8\)'),
        (dict(width=20), r'decoder width 20 \(model: 16\)'),
        (dict(levels=('P3', 'P5')), r'levels 2 \(model: 1\)'),
        (dict(num_mask_blocks=2), r'masks yes \(model: no\)'),
    ],
)
def test_another_variant_is_refused_with_both_sizes(sizes, text):
    with pytest.raises(CheckpointError, match='another variant .*' + text):
        fit_model(official_state(**sizes), model_of(), {})


@pytest.mark.parametrize('sizes', [dict(feedforward=48), dict(samples=4)])
def test_a_size_that_cannot_be_fitted_is_refused_with_both_shapes(sizes):
    with pytest.raises(CheckpointError, match=r'decoder.layers.0.* has the shape'):
        fit_model(official_state(**sizes), model_of(), {})


@pytest.mark.parametrize(
    ('names', 'text'),
    [
        (['conv1.weight', 'bn1.weight'], 'no RF-DETR checkpoint, .* conv1.weight'),
        (['model', 'args'], 'no RF-DETR checkpoint'),
        (
            [
                'decoder.norm.weight',
                'bbox_head.fc_cls.weight',
                'query_embedding.weight',
            ],
            'no RF-DETR checkpoint',
        ),
    ],
)
def test_strangers_are_refused(names, text):
    with pytest.raises(CheckpointError, match=text):
        fit_model(dict.fromkeys(names, torch.zeros(2)), model_of(), {})


def table(groups, queries):
    rows = torch.arange(groups * queries).view(groups, queries, 1)
    return torch.cat((rows, -rows), dim=2)


def test_queries_are_cut_in_each_group():
    cut = fit_query_table(table(3, 5), (2, 3, 2), keep_groups=True)[0]
    assert cut[..., 0].tolist() == [[0, 1, 2], [5, 6, 7]]


def test_queries_of_an_unknown_layout_are_cut_flat():
    cut = fit_query_table(table(3, 5), (2, 3, 2), keep_groups=False)[0]
    assert cut[..., 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize('keep_groups', [False, True])
@pytest.mark.parametrize(
    ('shape', 'settings'),
    [
        ((4, 5, 2), 'model.num_groups=3'),
        ((2, 8, 2), 'model.num_queries=5'),
        ((4, 6, 2), 'model.num_groups=3 and model.num_queries=5'),
    ],
)
def test_too_few_queries_are_refused_with_what_to_lower(shape, settings, keep_groups):
    with pytest.raises(CheckpointError, match=f'3 groups of 5 .*: set {settings}.$'):
        fit_query_table(table(3, 5), shape, keep_groups=keep_groups)
