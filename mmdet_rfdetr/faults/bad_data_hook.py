"""Stop a run whose data do not fit together, and report images that are broken."""

import logging
from collections.abc import Iterator

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..data.wrappers import innermost
from ..errors import list_names
from ..ops.unwrapped import unwrap_model
from .class_checks import check_classes, check_evaluation, check_loaders, loaders_of
from .coco_dataset import CheckedCocoDataset

_WHAT = dict(
    train='skipped in training',
    val='taken as black in validation',
    test='taken as black in testing',
)


@HOOKS.register_module()
class RFDETRBadDataHook(Hook):
    """Look at the classes and images of a run before its first step.

    It stops a run if data loaders have different classes, if the model has too few,
    or if an evaluator reads the annotations of other images than its data loader; see
    :mod:`~mmdet_rfdetr.faults.class_checks`. At the end of each epoch it tells which
    images could not be read in it.
    """

    def __init__(self) -> None:
        self._is_training = False
        self._told: dict[int, int] = {}

    def before_train(self, runner: Runner) -> None:
        """Compare the classes of loaders, model and annotations, and the images.

        Raises:
            BadDataError: an evaluator reads the annotations of other images, or a data
                set of mmdet gives labels in another order than that of its classes.
            ExplainedError: the data loaders have different classes, or the model has
                fewer outputs than there are classes.
        """
        self._is_training = True
        check_classes(runner, unwrap_model(runner.model))
        check_loaders(loaders_of(runner.cfg, runner))
        if runner.val_loop is not None:
            check_evaluation(runner.val_loop)

    def after_train(self, runner: Runner) -> None:
        """Take a validation for one of its own again."""
        self._is_training = False

    def before_val(self, runner: Runner) -> None:
        """Compare the images of a validation that is not part of a training."""
        if not self._is_training:
            check_evaluation(runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Compare the images of a test."""
        check_evaluation(runner.test_loop)

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
                f'{_WHAT[mode]}: {list_names(paths)}',
                logger='current',
                level=logging.WARNING,
            )


def coco_parts(dataset) -> Iterator[CheckedCocoDataset]:
    """The data sets within wrappers that know which files are broken."""
    for part in innermost(dataset):
        if isinstance(part, CheckedCocoDataset):
            yield part
