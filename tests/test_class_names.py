"""The rule by which classes of one list are found in another."""

import difflib

import pytest

from mmdet_rfdetr.class_names import (
    compare_classes,
    join_class_lists,
    match_classes,
    read_class_list,
)
from mmdet_rfdetr.errors import SettingError


def test_lists_and_tuples_are_read():
    assert read_class_list(['cat', 'dog']) == read_class_list(('cat', 'dog'))
    assert read_class_list((0, 1)) == ('0', '1')
    assert read_class_list(()) == ()


@pytest.mark.parametrize(
    'classes, advice',
    [
        ('cat', r"a text and no file .* tuple or list, classes=\('cat',\)"),
        ('cat, dog', r"list, classes=\('cat', 'dog'\)"),
        ({'cat': 1}, r"=\{'cat': 1\} must be a tuple or list of names"),
        (None, '=None must be'),
        (['cat', None], r"'cat', None\] must be"),
        (['cat', ['dog']], r"\['dog'\]\] must be"),
        (['cat', 'dog', 'cat'], "=.'cat', 'dog', 'cat'. has 'cat' more than once"),
    ],
)
def test_what_is_no_list_of_names_is_refused(classes, advice):
    with pytest.raises(SettingError, match=advice):
        read_class_list(classes)


def test_classes_are_found_by_name_whatever_the_order():
    match = match_classes(('a', 'b', 'c'), ('x', 'c', 'a', 'b', 'a'))
    assert match.positions == (2, 3, 1)
    assert (match.missing, match.unused) == ((), ('x',))
    assert match.suggestion() == ''


@pytest.mark.parametrize('found', ['Cat', ' cat', 'CAT ', 'c_at', 'c-at', 'ca t'])
def test_another_spelling_is_a_near_miss(found):
    match = match_classes(('cat', 'dog'), ('dog', found))
    assert match.positions == (None, 0)
    assert match.missing == ('cat',)
    assert match.misspelt == {'cat': found}
    assert match.suggestion() == f"Did you mean {found!r} (not 'cat')?"


def test_another_letter_may_be_a_near_miss():
    match = match_classes(('helmet', 'head'), ('helmett', 'head'))
    assert (match.misspelt, match.similar) == ({}, {'helmet': 'helmett'})


@pytest.mark.parametrize(
    'wanted, found',
    [
        (('lane 1', 'lane 2'), ('lane 1', 'lane 3')),  # numbers count
        (('cat', 'cats'), ('cats', 'dog')),  # a class that is wanted itself
        (('cat',), ('dog',)),
    ],
)
def test_other_classes_are_no_near_miss(wanted, found):
    match = match_classes(wanted, found)
    assert match.missing
    assert match.suggestion() == ''


def test_few_of_many_missing_classes_are_looked_for(monkeypatch):
    wanted = [f'sort{letter}' * 3 for letter in map(chr, range(0x4E00, 0x4E00 + 1203))]
    found = [f'{name[:-1]}_' for name in wanted[:20]] + [n.upper() for n in wanted[20:]]
    looked = []
    look = difflib.get_close_matches
    monkeypatch.setattr(
        difflib, 'get_close_matches', lambda *args: looked.append(args) or look(*args)
    )
    match = match_classes(wanted, found)
    assert list(match.misspelt) == wanted[20:]
    assert list(match.similar) == wanted[:12]
    assert len(looked) == 12


@pytest.mark.parametrize(
    'second, words',
    [
        (['a', 'b', 'c'], None),
        (('a', 'c', 'b'), 'has another order, from label 1 on'),
        (('a', 'c'), r"lacks ('b',)"),
        (('a', 'b', 'c', 'd'), r"has ('d',) more"),
        (('a', 'b', 'd'), r"lacks ('c',) and has ('d',) more"),
    ],
)
def test_two_lists_are_compared(second, words):
    assert compare_classes(('a', 'b', 'c'), second) == words


def test_long_lists_are_shortened():
    assert compare_classes(range(91), ()).endswith("'11') and 79 more")


def test_joined_lists_may_have_fewer_classes_in_the_same_order():
    assert join_class_lists([('a',), ['a', 'b', 'c'], ('a', 'b')]) == ('a', 'b', 'c')
    assert join_class_lists([]) == ()
    with pytest.raises(SettingError, match=r"\('a', 'b'\) and \('b',\)"):
        join_class_lists([('a', 'b'), ('b',)])
