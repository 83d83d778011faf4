"""What a model has to know of its classes before it loads a checkpoint."""

from collections.abc import Mapping

from mmengine.optim import BaseOptimWrapper
from mmengine.runner import BaseLoop, Runner

from ..checkpoints import class_rows
from ..checkpoints.layout import class_names
from ..class_names import compare_classes, match_classes, show_classes
from ..data.wrappers import classes_of_loader, metainfo_of
from ..models import RFDETR
from ..ops.unwrapped import unwrap_model


def name_classes(runner: Runner) -> None:
    """Let the model, and its averages, find the rows of a checkpoint by name.

    Args:
        runner: before it loads.
    """
    metainfo = _metainfo(runner)
    if not isinstance(metainfo.get('classes'), list | tuple):
        return
    averages = [vars(hook).get('ema_model') for hook in runner.hooks]
    for model in (unwrap_model(runner.model), *filter(None, averages)):
        for module in model.modules():
            if isinstance(module, RFDETR):
                module.dataset_meta = dict(metainfo)


def warn_of_other_classes(runner: Runner, checkpoint: Mapping) -> None:
    """Warn that a model is tested on other classes than it was trained on.

    Args:
        runner: a training may well begin with a checkpoint of others.
        checkpoint: as mmengine loads it.
    """
    trained = class_names(checkpoint.get('meta', {}))
    classes = _metainfo(runner).get('classes')
    if _is_training(runner) or not trained or not classes:
        return
    if class_rows.are_label_names(trained):
        trained = class_rows.label_names()  # which some write in another way
    difference = compare_classes(trained, classes)
    if difference:
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
    lists = map(classes_of_loader, loaders)
    return next((dict(classes=names) for names in lists if names), {})
