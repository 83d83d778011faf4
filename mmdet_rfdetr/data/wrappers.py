"""What lies within the wrappers of mmengine and mmdet around data sets."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.registry import DATASETS

from ..class_names import join_class_lists, read_class_list


def innermost(dataset: Any) -> Iterator[Any]:
    """The data sets within loaders and wrappers, or configs within those of them."""
    is_config = isinstance(dataset, Mapping)
    fields = dataset if is_config else getattr(dataset, '__dict__', {})
    inner = fields.get('dataset')
    parts = fields.get('datasets') or ([] if inner is None else [inner])
    if not parts:
        yield dataset
    for part in parts:
        yield from innermost(part)


def metainfo_of(dataset: Any) -> Mapping:
    """What a data set says of itself; of joined ones that differ, the most classes."""
    metainfo = getattr(dataset, 'metainfo', None) or {}
    # mmdet's ConcatDataset has a list then.
    if isinstance(metainfo, list):
        return max(metainfo, key=lambda part: len(part.get('classes', ())))
    return metainfo


def classes_of(dataset: Any) -> tuple[str, ...]:
    """Classes of a data set or a loader, or of the config of one; empty if none.

    Raises:
        SettingError: if parts of it mean different classes by a label.
    """
    lists = [
        read_class_list(metainfo['classes'])
        for metainfo in map(_own_metainfo, innermost(dataset))
        if metainfo.get('classes')
    ]
    return join_class_lists(lists)


def _own_metainfo(part: Any) -> Mapping:
    metainfo = getattr(part, 'metainfo', None)
    if isinstance(part, Mapping):
        kind = part.get('type')
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        # mmengine's data sets complete what a config says.
        complete = getattr(kind, '_load_metainfo', lambda given: given)
        metainfo = complete(part.get('metainfo'))
    return metainfo if isinstance(metainfo, Mapping) else {}
