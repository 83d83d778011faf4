"""What a model has to know of its classes before it loads a checkpoint."""

from collections.abc import Mapping

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import BaseLoop, Runner

from ..checkpoints import class_rows
from ..checkpoints.layout import class_names
from ..class_names import compare_classes, match_classes, show_classes
from ..data.wrappers import classes_of, metainfo_of
from ..models import RFDETR
from ..ops.unwrapped import unwrap_model


@HOOKS.register_module()
class RFDETRClassNamesHook(Hook):
    """Let a model know its classes before it loads a checkpoint.

    Then rows of the checkpoint are taken by the names of classes. It warns of a test
    with other classes than those that were trained.
    """

    # After mmengine's EMAHook has made its average.
    priority = 'VERY_LOW'

    def before_run(self, runner: Runner) -> None:
        """Name the classes."""
        _name_classes(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Name the classes where nothing runs, and compare them."""
        _name_classes(runner)
        if not _is_training(runner):
            _warn_of_other_classes(runner, checkpoint)


def _name_classes(runner: Runner) -> None:
    """Name the classes of the model and its averages."""
    metainfo = _metainfo(runner)
    if not isinstance(metainfo.get('classes'), list | tuple):
        return
    averages = [vars(hook).get('ema_model') for hook in runner.hooks]
    for model in (unwrap_model(runner.model), *filter(None, averages)):
        for module in model.modules():
            if isinstance(module, RFDETR):
                module.dataset_meta = dict(metainfo)


def _warn_of_other_classes(runner: Runner, checkpoint: Mapping) -> None:
    trained = class_names(checkpoint.get('meta', {}))
    classes = _metainfo(runner).get('classes')
    if not trained or not classes:
        return
    if class_rows.are_label_names(trained):
        trained = class_rows.label_names()  # which some write in another way
    if difference := compare_classes(trained, classes):
        match = match_classes(classes, trained)
        new = f', and {show_classes(match.missing)} have none' if match.missing else ''
        runner.logger.warning(
            f'The checkpoint was trained on the classes {show_classes(trained)}, and '
            f'this data has {show_classes(classes)}, which {difference}: rows are '
            f'taken by name{new}. {match.suggestion()}'.rstrip()
        )


def _is_training(runner: Runner) -> bool:
    """Whether the runner trains; mmengine's early stopping makes a loop in any case."""
    is_testing = isinstance(runner._test_loop, BaseLoop)
    return isinstance(runner.optim_wrapper, BaseOptimWrapper) and not is_testing


def _metainfo(runner: Runner) -> Mapping:
    """What is known of the classes of the data that the runner is about to read."""
    loops = runner._test_loop, runner._val_loop
    for loop in (runner._train_loop,) if _is_training(runner) else loops:
        if isinstance(loop, BaseLoop):
            return metainfo_of(loop.dataloader.dataset)
    # Nothing is built where a program only loads.
    loaders = runner._train_dataloader, runner._test_dataloader, runner._val_dataloader
    lists = map(classes_of, loaders)
    return next((dict(classes=names) for names in lists if names), {})
