from collections import OrderedDict

import pytest
import torch

from mmdet_rfdetr.checkpoints import class_rows, from_official
from mmdet_rfdetr.checkpoints.layout import class_names, to_mmengine_layout
from mmdet_rfdetr.errors import CheckpointError

from .official import official_state


def attached_info(state_dict):
    """What the hooks of a model get to see."""
    return state_dict._metadata['']['rfdetr']


ARGS = {'num_queries': 5, 'group_detr': 3, 'class_names': ['cat', 'dog'], 'lr': 1e-4}


def official(**entries):
    return {'model': official_state(), 'args': ARGS, **entries}


def test_arguments_become_information_of_the_weights():
    loaded = to_mmengine_layout(official(epoch=3, optimizer={}))
    assert loaded.keys() == {'state_dict', 'meta'}
    assert attached_info(loaded['state_dict']) == {
        'num_queries': 5,
        'group_detr': 3,
        'class_names': ['cat', 'dog'],
    }
    assert class_names(loaded['meta']) == ['cat', 'dog']


def test_the_newest_writer_keeps_sizes_in_the_model_config():
    config = {'num_queries': 5, 'group_detr': 3}
    loaded = to_mmengine_layout(
        official(args={'class_names': 'cat'}, model_config=config)
    )
    info = attached_info(loaded['state_dict'])
    assert info == {'num_queries': 5, 'group_detr': 3, 'class_names': ['cat']}


@pytest.mark.parametrize('args', [None, {}, {'lr': 1e-4}])
def test_arguments_that_say_nothing_do_no_harm(args):
    loaded = to_mmengine_layout(official(args=args))
    assert set(attached_info(loaded['state_dict']).values()) == {None}
    assert class_names(loaded['meta']) is None


def test_weights_without_names_for_91_rows_are_cocos():
    checkpoint = {'model': official_state(num_rows=91)}
    assert class_names(to_mmengine_layout(checkpoint)['meta']) == list(
        class_rows.label_names()
    )


@pytest.mark.parametrize('names', [None, 'labels'])
def test_rows_of_coco_are_named_by_category_id(names):
    args = {'class_names': list(class_rows.label_names())} if names else {}
    meta = to_mmengine_layout({'model': official_state(num_rows=91), 'args': args})[
        'meta'
    ]
    rows = meta['dataset_meta']['row_names']
    assert (len(rows), rows[1], rows[85], rows[90]) == (
        91,
        'person',
        'clock',
        'toothbrush',
    )
    assert (rows[0], rows[12]) == ('class 0', 'class 12')


def test_rows_of_own_classes_have_no_other_names():
    args = {'class_names': [f'name {i}' for i in range(90)]}
    loaded = to_mmengine_layout({'model': official_state(num_rows=91), 'args': args})
    assert loaded['meta']['dataset_meta'].keys() == {'classes'}


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'model': state},
        lambda state: {'state_dict': state},
        lambda state: {'state_dict': {f'model.{k}': v for k, v in state.items()}},
        lambda state: {'state_dict': {f'_orig_mod.{k}': v for k, v in state.items()}},
        lambda state: {
            'model': state,
            'state_dict': {f'model.{k}': v for k, v in state.items()},
        },
        lambda state: {
            'state_dict': {
                **{f'model._orig_mod.{k}': v for k, v in state.items()},
                'criterion.weight': torch.zeros(1),
            }
        },
    ],
)
def test_weights_are_found_wherever_a_file_keeps_them(wrap):
    state = official_state()
    found = to_mmengine_layout(wrap(state))['state_dict']
    assert found.keys() == state.keys()
    assert all(found[name] is state[name] for name in state)


def test_own_checkpoints_keep_everything():
    own = from_official(official_state())
    own._metadata = OrderedDict({'': {'version': 1}, 'backbone': {'version': 1}})
    checkpoint = {
        'state_dict': own,
        'meta': {'dataset_meta': {'classes': ('cat',)}, 'epoch': 3},
        'optimizer': {'state': {}},
    }
    loaded = to_mmengine_layout(checkpoint)
    assert loaded.keys() == checkpoint.keys()
    assert loaded['meta'] is checkpoint['meta']
    assert attached_info(loaded['state_dict']) == {'class_names': ['cat']}
    assert loaded['state_dict']._metadata[''].get('version') == 1
    assert loaded['state_dict']._metadata['backbone'] == {'version': 1}


def test_checkpoints_of_other_models_are_not_touched():
    for checkpoint in ({'state_dict': {'a': 1}}, {'model': {'a': 1}}, {'a': 1}):
        assert to_mmengine_layout(checkpoint) is checkpoint


@pytest.mark.parametrize(
    'value', [None, torch.zeros(1).expand(10**6, 10**6)], ids=['none', 'expanded']
)
def test_what_is_no_ordinary_tensor_is_told(value):
    state = {**official_state(), 'class_embed.bias': value}
    with pytest.raises(CheckpointError, match='class_embed.bias'):
        to_mmengine_layout({'model': state})


def test_views_and_empty_tensors_are_ordinary():
    state = official_state()
    state['class_embed.bias'] = torch.arange(14.0).view(7, 2).T[1]
    assert to_mmengine_layout({'model': state})['state_dict'].keys() == state.keys()


@pytest.mark.parametrize('names', [{'a', 'b', 'c'}, {'a': 0, 'b': 1}, 5, ['a', 1]])
def test_class_names_without_an_order_are_told(names):
    """A set has another order in each process, and rows would follow it."""
    own = from_official(official_state())
    with pytest.raises(CheckpointError, match='class names are'):
        to_mmengine_layout(
            {'state_dict': own, 'meta': {'dataset_meta': {'classes': names}}}
        )
