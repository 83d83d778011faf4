"""Rows of class layers belong to names, wherever both sides have them."""

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmdet_rfdetr.checkpoints import class_rows, from_official, load_checkpoint_file

from .models import build_tiny, official_file
from .test_hooks import log, tables  # noqa: F401  a fixture

ABC = ('a', 'b', 'c')
CLASS_LAYERS = [
    f'{layer}.fc_cls.{kind}'
    for layer in ('bbox_head', 'query_selection')
    for kind in ('weight', 'bias')
]
UNDERSCORES = [name.replace(' ', '_') for name in class_rows.label_names()]


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
        (91, None, class_rows.label_names(), None),
        (91, UNDERSCORES, class_rows.label_names(), None),
        (80, UNDERSCORES, class_rows.label_names(), None),
        (91, None, class_rows.row_names(), None),
        # Nobody knows better:
        (5, None, ABC, None),
        (9, ABC, ABC, None),
        (91, None, [f'{i}' for i in range(90)], None),
        (91, None, [f'{i}' for i in range(91)], None),
    ],
)
def test_rows_are_found_by_name(num_rows, names, wanted, positions):
    match = class_rows.match_rows(num_rows, names, wanted)
    assert (match and match.positions) == positions


@pytest.mark.parametrize('names', [None, [], 'coco'])
def test_coco_rows_are_picked_by_category_id(names):
    if names == 'coco':
        names = class_rows.label_names()
    rows, how = class_rows.choose_rows(91, 80, names)
    assert rows[:13] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14]
    assert (rows[-1], len(rows), len(set(rows))) == (90, 80, 80)
    assert 'category id' in how
    labels = dict(zip(class_rows.label_names(), rows, strict=True))
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
    assert class_rows.choose_rows(num_rows, num_classes, names)[0] == rows


def test_category_ids_leave_out_the_unused_ones():
    assert len(class_rows.CATEGORY_IDS) == 80
    assert not {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(
        class_rows.CATEGORY_IDS
    )


@pytest.mark.parametrize('separator', [' ', '_'])
def test_coco_names_are_known_in_both_spellings(separator):
    names = [name.replace(' ', separator) for name in class_rows.label_names()]
    assert class_rows.are_label_names(names)
    assert not class_rows.are_label_names(names[:-1])
    assert not class_rows.are_label_names([*names[:-1], 'unicorn'])


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


def test_a_model_without_names_takes_rows_by_position(tmp_path):
    model = build_tiny(**{'bbox_head.num_classes': 3})
    file = file_of('own', tmp_path)
    load_checkpoint(model, file)
    bias = load_checkpoint_file(file)['state_dict']['bbox_head.fc_cls.bias']
    assert torch.equal(model.bbox_head.fc_cls.bias, bias)
