import pytest
import torch

from mmdet_rfdetr.checkpoints import adapt, coco_rows
from mmdet_rfdetr.errors import CheckpointError


@pytest.mark.parametrize('names', [None, [], 'coco'])
def test_coco_rows_are_picked_by_category_id(names):
    if names == 'coco':
        names = coco_rows.label_names()
    rows, how = adapt.choose_class_rows(91, 80, names)
    assert rows[:13] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]
    assert (rows[-1], len(rows), len(set(rows))) == (90, 80, 80)
    assert 'category id' in how
    labels = dict(zip(coco_rows.label_names(), rows, strict=True))
    assert (labels['person'], labels['dog'], labels['toothbrush']) == (1, 18, 90)


@pytest.mark.parametrize(
    ('num_rows', 'num_classes', 'rows'),
    [
        (91, 80, list(range(80))),  # other names than COCO's
        (91, 4, [0, 1, 2, 3]),
        (4, 3, [0, 1, 2]),  # fine-tuned on three classes: the last row is unused
        (3, 7, [0, 1, 2, 0, 1, 2, 0]),
        (92, 80, list(range(80))),
    ],
)
def test_rows_are_cut_or_repeated(num_rows, num_classes, rows):
    names = [f'class {i}' for i in range(num_rows - 1)]
    assert adapt.choose_class_rows(num_rows, num_classes, names)[0] == rows


def test_category_ids_leave_out_the_unused_ones():
    assert len(coco_rows.CATEGORY_IDS) == 80
    assert not {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(coco_rows.CATEGORY_IDS)


@pytest.mark.parametrize('separator', [' ', '_'])
def test_coco_names_are_known_in_both_spellings(separator):
    names = [name.replace(' ', separator) for name in coco_rows.label_names()]
    assert coco_rows.are_label_names(names)
    assert not coco_rows.are_label_names(names[:-1])
    assert not coco_rows.are_label_names([*names[:-1], 'unicorn'])


def table(groups, queries):
    rows = torch.arange(groups * queries).view(groups, queries, 1)
    return torch.cat((rows, -rows), dim=2)


def test_queries_are_cut_in_each_group():
    cut = adapt.fit_query_table(table(3, 5), (2, 3, 2), keep_groups=True)
    assert cut[..., 0].tolist() == [[0, 1, 2], [5, 6, 7]]


def test_queries_of_an_unknown_layout_are_cut_flat():
    cut = adapt.fit_query_table(table(3, 5), (2, 3, 2), keep_groups=False)
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
        adapt.fit_query_table(table(3, 5), shape, keep_groups=keep_groups)


def test_patch_kernel_for_grey_images_is_the_mean():
    kernel = torch.randn(2, 3, 4, 4)
    grey = adapt.fit_patch_kernel(kernel, (2, 1, 4, 4))
    torch.testing.assert_close(grey[:, 0], kernel.mean(1))


def test_patch_kernel_for_more_channels_repeats_rgb():
    kernel = torch.randn(2, 3, 4, 4)
    more = adapt.fit_patch_kernel(kernel, (2, 4, 4, 4))
    torch.testing.assert_close(more, kernel[:, [0, 1, 2, 0]] * 0.75)


def test_patch_kernel_of_other_channels_is_refused():
    with pytest.raises(CheckpointError, match='4 channels, the model of 3'):
        adapt.fit_patch_kernel(torch.zeros(2, 4, 4, 4), (2, 3, 4, 4))
