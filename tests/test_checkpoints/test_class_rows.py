"""Rows of class layers belong to names, wherever both sides have them."""

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmdet_rfdetr.checkpoints import coco_rows, from_official, load_checkpoint_file
from mmdet_rfdetr.checkpoints.class_rows import match_rows, name_rows

from ..test_lora import needs_peft
from .models import build_tiny, official_file
from .test_hooks import log, tables  # noqa: F401  a fixture

ABC = ('a', 'b', 'c')
CLASS_LAYERS = [
    f'{layer}.fc_cls.{kind}'
    for layer in ('bbox_head', 'query_selection')
    for kind in ('weight', 'bias')
]
LORA = {'backbone.lora': dict(r=2, alpha=4)}
UNDERSCORES = [name.replace(' ', '_') for name in coco_rows.label_names()]


@pytest.mark.parametrize(
    ('num_rows', 'names', 'wanted', 'positions'),
    [
        (3, ABC, ('c', 'a', 'b'), (2, 0, 1)),
        (3, ABC, ('b', 'c'), (1, 2)),
        (3, ABC, ('c', 'd', 'a', 'e'), (2, None, 0, None)),
        (4, ABC, ('b', 'a', 'd'), (1, 0, None)),  # the official row without a class
        (3, ABC, ('x', 'y', 'z'), (None, None, None)),
        (91, None, ('dog', 'widget', 'person'), (18, None, 1)),
        (91, UNDERSCORES, ('widget', 'dining table'), (None, 67)),
        (80, UNDERSCORES, ('dining table',), (60,)),
        # By position, which is the same:
        (3, ABC, ABC, None),
        (4, ABC, ABC, None),
        (91, None, coco_rows.label_names(), None),
        (91, UNDERSCORES, coco_rows.label_names(), None),
        (80, UNDERSCORES, coco_rows.label_names(), None),
        (91, None, coco_rows.row_names(), None),
        # Nobody knows better:
        (5, None, ABC, None),
        (9, ABC, ABC, None),
        (91, None, [f'{i}' for i in range(90)], None),
        (91, None, [f'{i}' for i in range(91)], None),
    ],
)
def test_rows_are_found_by_name(num_rows, names, wanted, positions):
    match = match_rows(num_rows, names, wanted)
    assert (match and match.positions) == positions


def test_every_row_has_a_name_or_none():
    assert name_rows(4, ABC) == ['a', 'b', 'c', '']
    assert name_rows(3, ABC) == ['a', 'b', 'c']
    assert sum(map(bool, name_rows(91, None))) == 80
    assert name_rows(2, ABC) is None


def file_of(kind, tmp_path, **sizes):
    """A file of three classes; official ones have a row more."""
    names = list(ABC)
    content = official_file(num_rows=4 if kind == 'official' else 3, **sizes)
    if kind == 'official':
        content['args']['class_names'] = names
    else:
        meta = dict(dataset_meta=dict(classes=names))
        content = dict(state_dict=from_official(content['model']), meta=meta)
    path = str(tmp_path / f'{kind}.pth')
    torch.save(content, path)
    return path


@pytest.fixture(params=['official', 'own'])
def file(request, tmp_path):
    return file_of(request.param, tmp_path)


def load(file, classes, **changes):
    """Load into a model that knows its classes; return its weights before and after."""
    model = build_tiny(**{'bbox_head.num_classes': len(classes), **changes})
    model.dataset_meta = dict(classes=classes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_checkpoint(model, file)
    return before, model.state_dict()


@pytest.mark.parametrize(
    'classes', [('c', 'a', 'b'), ('b', 'c'), ('d', 'c', 'e', 'a'), ('x', 'y', 'z')]
)
def test_a_model_takes_the_rows_of_its_classes(classes, file):
    """Also as many of them in another order, which would load as they are."""
    before, after = load(file, classes)
    state = load_checkpoint_file(file)['state_dict']
    source = state if 'bbox_head.fc_cls.bias' in state else from_official(state)
    for name in CLASS_LAYERS:
        axis = int(name.startswith('query_selection'))
        for label, row in enumerate(after[name].unbind(axis)):
            known = classes[label] in ABC
            origin, index = (
                (source[name], ABC.index(classes[label]))
                if known
                else (before[name], label)
            )
            assert torch.equal(row, origin.select(axis, index)), (name, label)
    others = 'bbox_head.reg_branch', 'decoder.', 'backbone.'
    for name, value in after.items():
        if name.startswith(others) and name in source:
            assert torch.equal(value, source[name])


def test_the_table_says_which_class_took_which_row(file, log):  # noqa: F811
    load(file, ('c', 'd', 'A'))
    (table,) = (record.message for record in tables(log))
    kind = 'reshaped' if 'official' in file else 'reordered'
    lines = [line.strip() for line in table.splitlines()]
    assert lines[0].endswith(f'4 {kind}')
    assert [line for line in lines if line.startswith(kind)][0].endswith('by name')
    assert lines[-4:] == [
        'classes by name: c from row 2',
        'classes that start anew: d, A',
        'classes of the file that are not used: a, b',
        "Did you mean 'a' (not 'A')?",
    ]


def test_the_same_classes_are_loaded_in_silence(tmp_path, log):  # noqa: F811
    file = file_of('own', tmp_path)
    _, after = load(file, ABC)
    source = load_checkpoint_file(file)['state_dict']
    for name in CLASS_LAYERS:
        assert torch.equal(after[name], source[name])
    assert not tables(log)


def check_rows(file, **changes):
    """Load a file of a, b, c as c, a, b."""
    _, after = load(file, ('c', 'a', 'b'), **changes)
    state = load_checkpoint_file(file)['state_dict']
    source = state if 'bbox_head.fc_cls.bias' in state else from_official(state)
    name = 'query_selection.fc_cls.weight'
    assert torch.equal(after[name], source[name][: len(after[name]), [2, 0, 1]])


def test_fewer_groups_take_rows_by_name(file):
    check_rows(file, num_groups=2)


@needs_peft
def test_files_without_adapters_take_rows_by_name(file):
    check_rows(file, **LORA)


@needs_peft
@pytest.mark.parametrize('changes', [LORA, {}])
def test_files_with_adapters_take_rows_by_name(changes, tmp_path):
    trained = build_tiny(**{'bbox_head.num_classes': 3}, **LORA).state_dict()
    for name in CLASS_LAYERS:  # equal rows would prove nothing
        trained[name] = torch.rand_like(trained[name])
    meta = dict(dataset_meta=dict(classes=ABC))
    file = str(tmp_path / 'lora.pth')
    torch.save(dict(state_dict=trained, meta=meta), file)
    check_rows(file, **changes)


def test_a_model_without_names_takes_rows_by_position(tmp_path):
    model = build_tiny(**{'bbox_head.num_classes': 3})
    file = file_of('own', tmp_path)
    load_checkpoint(model, file)
    bias = load_checkpoint_file(file)['state_dict']['bbox_head.fc_cls.bias']
    assert torch.equal(model.bbox_head.fc_cls.bias, bias)
