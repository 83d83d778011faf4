"""Metrics that choose the best checkpoint and stop a run: their names and values."""

import difflib
import math
from collections.abc import Callable, Iterator
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


def has_value(score: Any, rule: str | None = 'greater') -> bool:
    """Whether a score can be the best: a finite number, and not COCO's -1 for none.

    Args:
        score: a metric.
        rule: ``'less'`` if small ones are better, of which -1 may be one.
    """
    try:
        score = float(score)
    except (TypeError, ValueError):  # none, or a text
        return False
    return math.isfinite(score) and (score != -1 or rule == 'less')


def pause_early_stopping(runner: Runner, metrics: dict) -> Callable[[], None]:
    """Let early stopping pass over a validation without a value of its metric.

    mmengine's would take -1 for a score that does not improve, and NaN for the best one
    if ``check_finite=False``; otherwise NaN ends the run, and here as well. With
    ``strict=True`` it would end the run in an error where nothing is detected in any
    image, of which COCO's metrics make no number.

    Args:
        runner: before its early stopping has seen the metrics.
        metrics: of the validation.

    Returns:
        To be called when it has.
    """
    paused = {
        hook: dict(
            wait_count=hook.wait_count, best_score=hook.best_score, strict=hook.strict
        )
        for hook in runner.hooks
        if isinstance(hook, EarlyStoppingHook) and _is_passed_over(hook, metrics)
    }
    for hook in paused:
        hook.wait_count = -math.inf  # it will not lose its patience
        hook.strict = False

    def go_on() -> None:
        for hook, state in paused.items():
            vars(hook).update(state)

    return go_on


def _is_passed_over(hook: EarlyStoppingHook, metrics: dict) -> bool:
    if hook.monitor not in metrics:
        return not metrics
    score = metrics[hook.monitor]
    if hook.check_finite and not math.isfinite(score):
        return False
    return not has_value(score, hook.rule)
