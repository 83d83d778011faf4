import pytest
import torch

from mmdet_rfdetr.checkpoints import CheckpointError, from_official
from mmdet_rfdetr.checkpoints.contents import check_complete, check_tensors, in_order

from .official import VARIANTS, official_sizes


def own_shapes(**sizes):
    own = from_official(official_sizes(**sizes))
    return {name: tuple(value.shape) for name, value in own.items()}


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_published_model_is_complete(variant):
    check_complete(own_shapes(**VARIANTS[variant]))


@pytest.mark.parametrize('masks', [0, 2])
def test_every_entry_is_missed(masks):
    shapes = own_shapes(num_blocks=2, num_mask_blocks=masks)
    for name in shapes.keys() - {'backbone.mask_token'}:
        lacking = {key: shape for key, shape in shapes.items() if key != name}
        with pytest.raises(CheckpointError, match=f'lacks .{name}.; get the file'):
            check_complete(lacking)


def test_every_wrong_number_of_axes_is_told():
    shapes = own_shapes(num_blocks=2, num_mask_blocks=2)
    for name in shapes.keys() - {'backbone.mask_token'}:
        for shape in ((), (*shapes[name], 1), (0, *shapes[name][1:])):
            with pytest.raises(CheckpointError, match='contradicts itself'):
                check_complete({**shapes, name: shape})


@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        ('backbone.pos_embed', (1, 9, 8)),  # the class entry is missing
        ('backbone.pos_embed', (1, 1, 8)),
        ('backbone.blocks.1.attn.qkv.weight', (23, 8)),
        ('backbone.patch_embed.weight', (8, 3, 4, 5)),
        ('bbox_head.fc_cls.bias', (8,)),
        ('query_selection.fc_cls.weight', (3, 8, 16)),
        ('query_embedding', (3, 6, 16)),
    ],
)
def test_sizes_that_contradict_each_other_are_told(name, shape):
    text = f'contradicts itself: .*{name}'
    with pytest.raises(CheckpointError, match=text) as caught:
        check_complete({**own_shapes(num_blocks=2), name: shape})
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (None, 'a NoneType'),
        ([1.0], 'a list'),
        (torch.eye(2).to_sparse(), 'a tensor without plain numbers'),
        (torch.zeros(2, device='meta'), 'a tensor without plain numbers'),
        (torch.zeros(1).expand(10**6, 10**6), r'fewer numbers than .*1000000'),
    ],
    ids=['none', 'list', 'sparse', 'meta', 'expanded'],
)
def test_what_is_no_ordinary_tensor_is_told(value, text):
    with pytest.raises(CheckpointError, match=f'holds {text}.* as .b.; get the file'):
        check_tensors({'a': torch.zeros(1), 'b': value})


def test_views_and_empty_tensors_are_ordinary():
    check_tensors({'a': torch.arange(6).view(2, 3).T[1:], 'b': torch.zeros(0, 0)})


@pytest.mark.parametrize(
    ('members', 'text'),
    [
        ({0: torch.zeros(2)}, 'make up .x. it lacks 1'),
        ({0: torch.zeros(2), 1: torch.zeros(3)}, r'.x. of the shape \(3,\)'),
        ({0: torch.zeros(2), 1: None}, r'.x. of the shape \(\)'),
        ({0: torch.zeros(()), 1: torch.zeros(())}, r'.x. of the shape \(\)'),
    ],
)
def test_what_cannot_be_joined_is_told(members, text):
    with pytest.raises(CheckpointError, match=text):
        in_order('x', members, [0, 1])
