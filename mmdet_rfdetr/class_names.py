"""Classes are known by their names: the one rule, for data, metric and checkpoints.

A label is a position in a list of class names. Two lists, of a config, of the
categories of a file or of a checkpoint, are related by the names in them and never by
position, which means nothing outside its own list.
"""

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import SettingError

_SIMILAR = 0.8  # of difflib: a letter of five is another one
_MOST_SHOWN = 12


@dataclass(frozen=True)
class ClassMatch:
    """How the classes that are wanted are found in another list.

    Attributes:
        positions: of each wanted class its position in the other list, or None.
        missing: wanted classes that are not in the other list.
        unused: names of the other list that nobody wants.
        misspelt: missing to unused name where the two differ in nothing but capitals,
            spaces, underscores and hyphens, which is nearly surely a mistake.
        similar: missing to unused name where the two differ by a letter or so, which
            may be a mistake; of the first dozen that are neither found nor misspelt.
    """

    positions: tuple[int | None, ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    misspelt: dict[str, str] = field(default_factory=dict)
    similar: dict[str, str] = field(default_factory=dict)

    def suggestion(self) -> str:
        """``Did you mean 'cat' (not 'Cat')?`` for all near misses, or an empty text."""
        pairs = (self.misspelt | self.similar).items()
        meant = [f'{found!r} (not {wanted!r})' for wanted, found in pairs]
        return f'Did you mean {", ".join(meant[:_MOST_SHOWN])}?' if meant else ''


def read_class_list(classes: Any, name: str = 'metainfo.classes') -> tuple[str, ...]:
    """Check a list of class names.

    Args:
        classes: what a config or a file gives; numbers are read as text.
        name: of the setting, for errors.

    Returns:
        The names.

    Raises:
        SettingError: if it is a text, holds other things than names, or a name twice.
    """
    if isinstance(classes, str):
        names = tuple(part.strip() for part in classes.split(',') if part.strip())
        raise SettingError(
            f'{name}={classes!r} is a text and no file of names: write a tuple or '
            f'list, classes={names}.'
        )
    is_list = isinstance(classes, tuple | list)
    if not is_list or not all(isinstance(entry, str | int) for entry in classes):
        raise SettingError(
            f'{name}={reprlib.repr(classes)} must be a tuple or list of names.'
        )
    names = tuple(map(str, classes))
    if len(set(names)) < len(names):
        again = next(entry for entry in names if names.count(entry) > 1)
        raise SettingError(
            f'{name}={show_classes(names)} has {again!r} more than once: give each '
            'class a name of its own.'
        )
    return names


def match_classes(wanted: Sequence[str], found: Sequence[str]) -> ClassMatch:
    """Find classes by name in another list.

    Args:
        wanted: names in the order of the labels.
        found: names to look among, in any order; of equal ones the first counts.
    """
    wanted, found = (tuple(map(str, names)) for names in (wanted, found))
    index = {name: number for number, name in reversed(list(enumerate(found)))}
    missing = tuple(name for name in wanted if name not in index)
    known = set(wanted)
    unused = tuple(dict.fromkeys(name for name in found if name not in known))
    folded = {_fold(name): name for name in unused}
    misspelt = {name: folded[_fold(name)] for name in missing if _fold(name) in folded}
    similar = {}
    # Each of them is compared with all unused names: no more than are shown.
    for name in [name for name in missing if name not in misspelt][:_MOST_SHOWN]:
        close = difflib.get_close_matches(_fold(name), folded, 1, _SIMILAR)
        # "lane 1" and "lane 2" are two classes.
        if close and re.findall(r'\d+', name) == re.findall(r'\d+', close[0]):
            similar[name] = folded[close[0]]
    return ClassMatch(tuple(map(index.get, wanted)), missing, unused, misspelt, similar)


def compare_classes(first: Sequence[str], second: Sequence[str]) -> str | None:
    """Say how two lists of classes differ.

    Args:
        first: names in the order of the labels.
        second: the same, of something that should have the same labels.

    Returns:
        A few words on the second list, as seen from the first; None if they are equal.
    """
    first, second = (list(map(str, names)) for names in (first, second))
    if first == second:
        return None
    match = match_classes(first, second)
    lacks = f'lacks {show_classes(match.missing)}' if match.missing else ''
    more = f'has {show_classes(match.unused)} more' if match.unused else ''
    if lacks or more:
        return ' and '.join(filter(None, (lacks, more)))
    label = next(i for i, name in enumerate(first) if second[i : i + 1] != [name])
    return f'has another order, from label {label} on'


def join_class_lists(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Take the longest of lists of which every other is the beginning.

    So labels mean the same in all data sets that are joined, though some have fewer.

    Args:
        lists: classes of each data set.

    Raises:
        SettingError: if a label means two classes.
    """
    longest = max(map(tuple, lists), key=len, default=())
    for names in lists:
        if longest[: len(names)] != tuple(names):
            raise SettingError(
                'Data sets that are joined number classes in different ways: '
                f'{show_classes(longest)} and {show_classes(names)}. Set the same '
                'metainfo=dict(classes=...) in all of them.'
            )
    return longest


def show_classes(names: Sequence[str]) -> str:
    """Class names for a message, not too many."""
    shown = tuple(names[:_MOST_SHOWN])
    more = len(names) - len(shown)
    return f'{shown} and {more} more' if more else str(shown)


def _fold(name: str) -> str:
    """A name without what is easily written in another way."""
    return re.sub(r'[\s_-]+', '', unicodedata.normalize('NFKC', name).casefold())
