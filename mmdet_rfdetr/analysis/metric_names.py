"""Names of the metrics that choose the best checkpoint and stop a run."""

import difflib
from collections.abc import Iterator
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.runner import Runner

from ..errors import SettingError
from ..training.val_loss import RFDETRValLossHook


def check_metric_names(runner: Runner) -> None:
    """Compare ``save_best`` and ``monitor`` with what the evaluator will give.

    ``RFDETRCocoMetric`` knows its names. Of other metrics only the prefix is known, and
    nothing of other evaluators, or where a hook from elsewhere may add metrics.

    Args:
        runner: with its validation loop.

    Raises:
        SettingError: if no metric can have such a name, or early stopping has no
            validation to look at.
    """
    hooks = runner.hooks
    wanted = list(_wanted_names(hooks))
    if runner.val_loop is None:
        for setting, name in wanted:
            if setting == 'monitor':
                raise SettingError(
                    f'EarlyStoppingHook waits for {name!r}, and nothing is validated: '
                    'remove it from custom_hooks, or set val_dataloader, val_cfg and '
                    'val_evaluator.'
                )
        return
    evaluator = getattr(runner.val_loop, 'evaluator', None)
    if type(evaluator) is not Evaluator or any(map(_may_add_metrics, hooks)):
        return
    has_losses = any(isinstance(hook, RFDETRValLossHook) for hook in hooks)
    for setting, name in wanted:
        if has_losses and '/' not in name:
            continue
        if not any(_may_give(metric, name) for metric in evaluator.metrics):
            choice = _choice(evaluator, name)
            todo = f'choose {choice}'
            if setting == 'save_best':
                todo += ", or 'auto' for the first metric"
            if not choice:
                todo = 'it gives none, with format_only=True: leave that, or this, out'
            raise SettingError(
                f'{setting}={name!r} is no metric of val_evaluator: {todo}.'
            )


def _wanted_names(hooks: list[Hook]) -> Iterator[tuple[str, str]]:
    """Settings that name a metric, and the names."""
    for hook in hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            names = (name for name in hook.key_indicators if name != 'auto')
            yield from (('save_best', name) for name in names)
        elif isinstance(hook, EarlyStoppingHook):
            yield 'monitor', hook.monitor


def _may_add_metrics(hook: Hook) -> bool:
    method = type(hook).after_val_epoch
    known = ('mmengine.', 'mmdet.', 'mmdet_rfdetr.')
    return not method.__module__.startswith(known)


def _may_give(metric: Any, name: str) -> bool:
    """Whether a metric can give a value of this name."""
    if hasattr(metric, 'metric_names'):
        return name in metric.metric_names()
    return not metric.prefix or name.startswith(f'{metric.prefix}/')


def _choice(evaluator: Evaluator, name: str) -> str:
    """Names there are, and what others begin with."""
    names, rest = [], []
    for metric in evaluator.metrics:
        if hasattr(metric, 'metric_names'):
            names += metric.metric_names()
        else:
            rest.append(f"one of {type(metric).__name__}'s, '{metric.prefix}/...'")
    if names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f' (did you mean {close[0]}?)' if close else ''
        rest.insert(0, f'one of {", ".join(names)}{hint}')
    return ', or '.join(rest)
