"""Report images that turned out to be broken during a run."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..data.coco_dataset import RFDETRCocoDataset

_EXAMPLES = 3
_WHAT = dict(
    train='skipped in training',
    val='taken as black in validation',
    test='taken as black in testing',
)


@HOOKS.register_module()
class RFDETRBadDataHook(Hook):
    """Tell at the end of each epoch which images could not be read in it."""

    def __init__(self) -> None:
        self._told: dict[int, int] = {}

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Report images that were skipped or replaced, if there are more of them."""
        dataset = getattr(runner, f'{mode}_dataloader').dataset
        for part in coco_parts(dataset):
            flags = part.unreadable.int()
            all_reduce(flags, 'max')
            count = int(flags.sum())
            if count == self._told.get(id(part), 0):
                continue
            self._told[id(part)] = count
            paths = [
                info['img_path']
                for info in map(part.get_data_info, range(len(part)))
                if flags[info['file_index']]
            ]
            print_log(
                f'{count} of {len(part)} images could not be read and were '
                f'{_WHAT[mode]}: '
                f'{", ".join(paths[:_EXAMPLES])}{" ..." * (count > _EXAMPLES)}',
                logger='current',
                level=logging.WARNING,
            )


def innermost(dataset) -> Iterator[Any]:
    """The data sets within mmengine's and mmdet's wrappers."""
    parts = getattr(dataset, 'datasets', None)
    if parts is None and hasattr(dataset, 'dataset'):
        parts = [dataset.dataset]
    if parts is None:
        yield dataset
    for part in parts or ():
        yield from innermost(part)


def metainfo_of(dataset) -> Mapping:
    """What a data set says of itself; of joined ones that differ, the most classes."""
    metainfo = getattr(dataset, 'metainfo', None) or {}
    # mmdet's ConcatDataset has a list then.
    if isinstance(metainfo, list):
        return max(metainfo, key=lambda part: len(part.get('classes', ())))
    return metainfo


def coco_parts(dataset) -> Iterator[RFDETRCocoDataset]:
    """The data sets of ours within mmengine's and mmdet's wrappers."""
    for part in innermost(dataset):
        if isinstance(part, RFDETRCocoDataset):
            yield part
