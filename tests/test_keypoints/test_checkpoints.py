"""Checkpoints with other points, other classes, or without points."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_rfdetr.checkpoints import to_official
from mmdet_rfdetr.checkpoints.layout import to_mmengine_layout
from mmdet_rfdetr.errors import CheckpointError
from mmdet_rfdetr.formats.convert import convert_checkpoint
from tests import parity
from tests.fixtures import load_json, needs_fixtures, rule

from .case import tiny_config

QUERIES = 'keypoint_head.initialiser.queries'
CLASSES = 'bbox_head.fc_cls.bias'


def build(schema, num_logits=2, classes=None, **changes):
    torch.manual_seed(0)
    model = MODELS.build(tiny_config(schema, num_logits, **changes))
    if classes:
        model.dataset_meta = dict(classes=classes)
    return model


def official_file(schema, num_logits=2, names=None, **changes):
    """Content of an official file, with weights from the rule."""
    model = parity.rule_model(tiny_config(schema, num_logits, **changes))
    args = dict(num_queries=10, group_detr=3)
    if names:
        args['class_names'] = names
    return {'model': to_official(model.state_dict()), 'args': args}


@pytest.fixture
def table(monkeypatch):
    """What is said of the checkpoints that are loaded."""
    said = []
    log = 'mmdet_rfdetr.checkpoints.report.print_log'
    monkeypatch.setattr(log, lambda text, **options: said.append(text))
    return said


def load(model, content):
    """Load a file; the entries of the model and of the file by the model's names."""
    checkpoint = to_mmengine_layout(content)
    model.load_state_dict(checkpoint['state_dict'])
    return model.state_dict()


def test_official_names_go_there_and_back():
    model = build((4, 0, 2), 5)
    official = to_official(model.state_dict())
    assert official['_kp_active_mask'].sum(1).tolist() == [4, 0, 2]
    assert official['transformer.decoder.keypoint_class_mask'].shape == (7, 7)
    assert not [name for name in official if 'keypoint_head' in name]
    again = build((4, 0, 2), 5)
    torch.nn.init.ones_(again.keypoint_head.decoder.pos_embed)
    loaded = load(again, {'model': official, 'args': {}})
    assert loaded.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert loaded[name].equal(value), name


def test_the_same_schema_says_nothing_more(table):
    load(build((17,)), official_file((17,)))
    (said,) = table
    assert said.endswith('all fit')


@pytest.mark.parametrize(
    ('ours', 'rows'),
    [
        ((5,), [0, 1, 2, 3, 4]),
        ((20,), [*range(17), 0, 1, 2]),
        ((17, 3), [*range(17), 0, 1, 2]),
        ((3, 0, 2), [0, 1, 2, 0, 1]),
    ],
)
def test_other_numbers_of_points(ours, rows, table):
    content = official_file((17,))
    loaded = load(build(ours, 4), content)
    theirs = content['model']['transformer.keypoint_query_initializer.queries']
    assert loaded[QUERIES].equal(theirs[rows])
    assert loaded['keypoint_head.active'].sum(1).tolist() == list(ours)
    assert f'points by schema [17] -> {list(ours)}' in table[0]


@pytest.mark.parametrize('names', (None, ['person'], ['background', 'person']))
@pytest.mark.parametrize('classes', (None, ('person',)))
def test_a_file_with_the_background_first(names, classes, table):
    """The rows of persons come from where persons are, not from the background."""
    content = official_file((0, 17), 2, names)
    loaded = load(build((17,), 1, classes), content)
    theirs = content['model']
    for name in ('bias', 'weight'):
        assert loaded[f'bbox_head.fc_cls.{name}'].equal(
            theirs[f'class_embed.{name}'][1:]
        )
        of_encoder = theirs[f'transformer.enc_out_class_embed.2.{name}'][1:]
        assert loaded[f'query_selection.fc_cls.{name}'][2].equal(of_encoder)
    assert loaded[QUERIES].equal(
        theirs['transformer.keypoint_query_initializer.queries']
    )
    assert 'points by schema [0, 17] -> [17]' in table[0]
    assert '17 of 17 from row 1' in table[0] and 'official loader' in table[0]


def test_classes_with_points_by_name(table):
    content = official_file((3, 0, 2), 4, ['horse', 'cart', 'person'])
    theirs = content['model']
    loaded = load(build((2, 3), 3, ('person', 'horse', 'dog')), content)
    queries = theirs['transformer.keypoint_query_initializer.queries']
    assert loaded[QUERIES].equal(queries[[3, 4, 0, 1, 2]])
    assert loaded[CLASSES][:2].equal(theirs['class_embed.bias'][[2, 0]])
    assert 'person 2 of 2 from row 2, horse 3 of 3 from row 0' in table[0]
    assert 'dog' in table[0]


@pytest.mark.parametrize('masked', (False, True), ids=('detection', 'segmentation'))
def test_a_model_without_points_is_a_start(masked, table):
    content = official_file(
        (17,), num_keypoints_per_class=None, segmentation_head=masked
    )
    model = build((17,))
    before = model.state_dict()[QUERIES].clone()
    loaded = load(model, content)
    for name, value in to_official(loaded).items():
        if name in content['model'] and 'kp_active' not in name:
            assert value.equal(content['model'][name]), name
        if 'cross_attn_projector' in name:
            of_neck = name.replace('cross_attn_projector', 'projector')
            assert value.equal(content['model'][of_neck])
    assert loaded[QUERIES].equal(before)
    for said in ('keypoints start anew', 'copied from neck'):
        assert said in table[0]
    assert ('masks are left out' in table[0]) == masked
    assert 'missing' not in table[0] and 'unexpected' not in table[0]


def test_a_file_without_the_second_projector(table):
    content = official_file((17,))
    theirs = content['model']
    for name in [name for name in theirs if 'cross_attn_projector' in name]:
        del theirs[name]
    loaded = load(build((17,)), content)
    for name, value in loaded.items():
        if name.startswith('keypoint_head.neck.'):
            assert value.equal(loaded[name.removeprefix('keypoint_head.')])
    assert 'copied from neck' in table[0]


def test_entries_of_the_released_file_that_no_model_has(table, tmp_path):
    content = official_file((17,))
    content['model']['keypoint_head.keypoint_proj.weight'] = torch.ones(2, 2)
    load(build((17,)), content)
    assert 'unexpected' not in table[0]
    torch.save(content, tmp_path / 'official.pth')
    convert_checkpoint(tmp_path / 'official.pth', tmp_path / 'own.pth')
    own = torch.load(tmp_path / 'own.pth')['state_dict']
    assert own.keys() == build((17,)).state_dict().keys()


def test_converting_says_that_there_are_keypoints(tmp_path):
    torch.save({'state_dict': build((17,), 1).state_dict()}, tmp_path / 'own.pth')
    convert_checkpoint(tmp_path / 'own.pth', tmp_path / 'official.pth')
    content = torch.load(tmp_path / 'official.pth')
    assert content['args']['use_grouppose_keypoints'] is True
    assert content['model']['_kp_active_mask'].tolist() == [[True] * 17]


CASES = {
    'same': ((17,), {}),
    'schema_17_to_5': ((5,), {}),
    'schema_17_to_17_3': ((17, 3), {}),
    'without_cross_projector': ((17,), {}),
}


@needs_fixtures
@pytest.mark.long
@pytest.mark.parametrize('case', CASES)
def test_official_loader(case):
    """The sums of what the official loader makes of a file of full size."""
    schema, _ = CASES[case]
    description = load_json('keypoint/small')
    expected = description[f'adapt_{case}']['tensors']
    config = load_json('keypoint/config')
    seed = description['adapt_checkpoint_seed']
    state = rule().synthetic_state(load_json('keypoint/params'), seed)
    if case == 'without_cross_projector':
        state = {n: x for n, x in state.items() if 'cross_attn_projector' not in n}
    logits = expected['class_embed.bias']['shape'][0]
    sizes = dict(config['model'], num_keypoints_per_class=list(schema))
    model = MODELS.build(parity.model_config(sizes, logits))
    args = dict(description['adapt_checkpoint_args'], class_names=None)
    weights = {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}
    load(model, {'model': weights, 'args': args})
    ours = to_official(model.state_dict())
    for name, entry in expected.items():
        value = ours[name].double()
        assert list(value.shape) == entry['shape'], name
        assert float(value.abs().sum()) == pytest.approx(entry['abs_sum']), name
        assert float(value.sum()) == pytest.approx(entry['sum'], abs=1e-4), name


@pytest.mark.parametrize('damage', ('mask', 'queries', 'empty'))
def test_a_damaged_file_is_one_sentence(damage):
    content = official_file((17,))
    weights = content['model']
    if damage == 'mask':
        weights['_kp_active_mask'] = torch.ones(1, 40, dtype=torch.bool)
    elif damage == 'empty':
        weights['_kp_active_mask'] = torch.zeros(1, 17, dtype=torch.bool)
    else:
        del weights['transformer.keypoint_query_initializer.queries']
    with pytest.raises(CheckpointError, match='damaged'):
        load(build((5,)), content)


def test_a_model_without_points_refuses_them():
    model = build((17,), num_keypoints_per_class=None)
    with pytest.raises(CheckpointError, match=r'keypoints yes \(model: no\)'):
        load(model, official_file((17,)))
