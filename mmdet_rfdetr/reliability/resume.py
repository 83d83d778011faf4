"""What was trained beside what will be, compared before a run is resumed."""

import math
import os
import warnings
from collections.abc import Mapping
from itertools import chain
from pathlib import PureWindowsPath
from typing import Any

from mmengine.hooks import EarlyStoppingHook, EMAHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from ..checkpoints.layout import class_names
from ..class_names import compare_classes, show_classes
from ..data.wrappers import metainfo_of
from ..errors import CheckpointError, ResumeError, list_names
from ..ops.unwrapped import unwrap_model

TRAINED_WITH = 'trained_with'
"""Where ``meta`` of a checkpoint says what the states in it belong to."""

POINTER = 'last_checkpoint'
"""The file of a work folder that names its last checkpoint."""

# How far a schedule is; the rest of its state is what it was set to.
_PROGRESS = {
    *('base_values', 'last_step', '_global_step', '_iterations', '_last_value'),
    'verbose',
}


def trained_with(runner: Runner) -> dict:
    """What the states in a checkpoint of this run belong to.

    Args:
        runner: with its optimizer built.

    Returns:
        ``optimizer`` and ``param_schedulers`` (types), ``parameters`` (the names in
        each group of the optimizer) and ``accumulative_counts``. Nothing for several
        optimizers, which are not compared.
    """
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return {}
    names = {
        id(value): name for name, value in unwrap_model(runner.model).named_parameters()
    }
    return dict(
        optimizer=type(wrapper.optimizer).__name__,
        param_schedulers=[
            type(entry).__name__ for entry in runner.param_schedulers or ()
        ],
        parameters=[
            [names.get(id(parameter)) for parameter in group['params']]
            for group in wrapper.optimizer.param_groups
        ],
        accumulative_counts=getattr(wrapper, '_accumulative_counts', 1),
    )


def find_last_checkpoint(work_dir: str, folder: str) -> str | None:
    """Follow the pointer of a work folder, which may have been moved or copied.

    Args:
        work_dir: where the pointer lies.
        folder: where the run writes its checkpoints.

    Returns:
        The path of the last checkpoint, None without a pointer.

    Raises:
        CheckpointError: there is no such file.
    """
    pointer = os.path.join(work_dir, POINTER)
    if not os.path.isfile(pointer):
        return None
    with open(pointer, encoding='utf-8') as file:
        path = file.read().strip()
    if '://' in path:  # a storage, which does not move with the folder
        return path
    beside = os.path.join(folder, PureWindowsPath(path).name)  # of any system
    for found in (beside, os.path.join(work_dir, path)):
        if os.path.isfile(found):
            return found
    raise CheckpointError(
        f'{pointer} names {path!r}, and neither this file nor {beside} is there: write '
        f'the name of a checkpoint in {folder} into it, or add --cfg-options '
        'load_from=FILE to --resume.'
    )


def follow_move(info: dict[str, Any], folder: str) -> None:
    """Let the paths in a checkpoint follow a folder that was moved or copied.

    Args:
        info: ``runtime_info`` of the checkpoint's message hub, changed.
        folder: where the checkpoint was found.
    """
    before = os.path.dirname(info.get('last_ckpt') or '')
    for key, path in info.items():
        is_path = key == 'last_ckpt' or key.startswith('best_ckpt')
        if is_path and isinstance(path, str) and os.path.dirname(path) == before:
            info[key] = os.path.join(folder, os.path.basename(path))


def compare(runner: Runner, checkpoint: dict, *, settings: str) -> None:
    """Compare a checkpoint with the run that is to go on from it.

    Nothing is loaded yet. Differences with which a run can go on are logged.

    Args:
        runner: with everything built.
        checkpoint: as mmengine loads it; changed where ``settings`` says so.
        settings: whose learning rates, decay and schedule count, ``'checkpoint'`` or
            ``'config'``.

    Raises:
        CheckpointError: it holds no run.
        ResumeError: its classes, parameters or optimizer are others than those of this
            run, or its schedule, or its images in an iteration.
    """
    meta = checkpoint.get('meta', {})
    if 'message_hub' not in checkpoint or 'epoch' not in meta:
        raise CheckpointError(
            'The checkpoint holds weights only and no run to resume: start from it '
            'with --cfg-options load_from=FILE and without --resume.'
        )
    before, now = meta.get(TRAINED_WITH, {}), trained_with(runner)
    has_optimizer = bool(now) and 'optimizer' in checkpoint
    difference = _other_classes(runner, meta) or _other_weights(runner, checkpoint)
    if has_optimizer and not difference:
        difference = _other_optimizer(runner, checkpoint['optimizer'], before, now)
    if difference:
        name = runner._load_from or 'FILE'
        raise ResumeError(
            f'{difference}, so the run cannot be resumed: start a new one from its '
            f'weights with --cfg-options load_from={name} and without --resume.'
        )
    if 'training_state' in checkpoint and hasattr(runner.train_loop, 'check'):
        runner.train_loop.check(checkpoint['training_state']['loop'])
    if has_optimizer:
        _settle(runner, checkpoint, before, now, settings)
    elif 'optimizer' not in checkpoint:
        runner.logger.warning(
            'The checkpoint holds no state of the optimizer, which begins anew.'
        )
    _settle_average(runner, checkpoint)
    _log_changes(runner, checkpoint, before, now)


def _other_classes(runner: Runner, meta: Mapping) -> str | None:
    """Say how the classes differ from those of the checkpoint, None if they do not."""
    trained = class_names(meta)
    classes = metainfo_of(runner.train_dataloader.dataset).get('classes')
    if not trained or not classes or isinstance(classes, str):
        return None
    difference = compare_classes(trained, classes)
    return difference and (
        f'The checkpoint was trained on the classes {show_classes(tuple(trained))}, '
        f'and the training data has {show_classes(tuple(classes))}, which {difference}'
    )


def _other_weights(runner: Runner, checkpoint: Mapping) -> str | None:
    """Say which weights the model and the checkpoint do not have in common."""
    theirs, ours = checkpoint['state_dict'], unwrap_model(runner.model).state_dict()
    for names, what in (
        (ours.keys() - theirs.keys(), 'lacks weights of the model'),
        (theirs.keys() - ours.keys(), 'has weights that the model lacks'),
    ):
        if names:
            return f'The checkpoint {what} ({list_names(sorted(names))})'
    for name, value in ours.items():
        if value.shape != theirs[name].shape:
            return (
                f'{name} is {tuple(theirs[name].shape)} in the checkpoint and '
                f'{tuple(value.shape)} in the model'
            )
    return None


def _other_optimizer(
    runner: Runner, state: Mapping, before: Mapping, now: Mapping
) -> str | None:
    """Say how the optimizer differs from the one whose state a checkpoint holds."""
    ours, theirs = runner.optim_wrapper.optimizer.param_groups, state['param_groups']
    kind = before.get('optimizer', now['optimizer'])
    if kind != now['optimizer']:
        return (
            f'The checkpoint was trained by {kind}, and this run has {now["optimizer"]}'
        )
    sizes, their_sizes = (
        [len(group['params']) for group in groups] for groups in (ours, theirs)
    )
    if sizes != their_sizes:
        return (
            f'The optimizer of the checkpoint has {sum(their_sizes)} parameters in '
            f'{len(theirs)} groups, and that of this run {sum(sizes)} in {len(ours)}'
        )
    names, their_names = (
        list(chain(*made.get('parameters', now['parameters'])))
        for made in (now, before)
    )
    parameters = chain(*(group['params'] for group in ours))
    for index, parameter in enumerate(parameters):
        name = names[index]
        if name != their_names[index]:
            return (
                f'The optimizer of the checkpoint has {their_names[index]} where that '
                f'of this run has {name}'
            )
        for key, value in state['state'].get(index, {}).items():
            # Counts of steps are numbers.
            is_array = isinstance(value, Tensor) and value.dim()
            if is_array and value.shape != parameter.shape:
                return (
                    f'{key} of {name} is {tuple(value.shape)} in the optimizer of the '
                    f'checkpoint, and the parameter {tuple(parameter.shape)}'
                )
    # mmengine's files do not name the optimizer. Versions of torch add settings.
    their_keys, our_keys = (_settings(groups[0]).keys() for groups in (theirs, ours))
    if 'optimizer' not in before and their_keys - our_keys and our_keys - their_keys:
        return (
            f'The checkpoint was trained by an optimizer with the settings '
            f'{", ".join(their_keys)}, and this run has {now["optimizer"]}'
        )
    return None


def _settle(
    runner: Runner, checkpoint: dict, before: Mapping, now: Mapping, settings: str
) -> None:
    """Let the settings of the checkpoint or those of the config count, and say so."""
    states = checkpoint.get('param_schedulers', [])
    kinds = before.get('param_schedulers', now['param_schedulers'])
    schedulers = runner.param_schedulers or []
    is_same_schedule = (
        len(states) == len(schedulers) and kinds == now['param_schedulers']
    )
    overridden = _overridden(runner, checkpoint['optimizer']['param_groups'])
    if is_same_schedule:
        overridden += _overridden_schedule(schedulers, states)
    else:
        shown = [
            ', '.join(names) or 'none' for names in (kinds, now['param_schedulers'])
        ]
        overridden.append(f'param_scheduler {shown[0]} (config: {shown[1]})')
    if not overridden:
        return
    if settings == 'config':
        _take_settings_of_config(runner, checkpoint)
        runner.logger.info(
            'The settings of the config count, not those of the checkpoint: '
            f'{", ".join(overridden)}.'
        )
        return
    remedy = 'set default_hooks.checkpoint.resume_settings=config'
    if not is_same_schedule:
        raise ResumeError(
            f'The checkpoint cannot go on with another kind of schedule '
            f'({overridden[-1]}): {remedy}, which begins the new one at the present '
            'place, or start a new run from the weights with --cfg-options '
            f'load_from={runner._load_from or "FILE"} and without --resume.'
        )
    runner.logger.warning(
        'The run goes on with the settings of the checkpoint, not with those of the '
        f'config: {", ".join(overridden)}. For those of the config {remedy}.'
    )


def _settings(group: Mapping) -> dict[str, Any]:
    """What a group of an optimizer was set to, before any schedule."""
    return {
        key: group.get(f'initial_{key}', value)
        for key, value in group.items()
        if key != 'params' and not key.startswith('initial_')
    }


def _overridden(runner: Runner, theirs: list[dict]) -> list[str]:
    """Settings of the optimizer that differ, each in the first group where it does."""
    ours = runner.optim_wrapper.optimizer.param_groups
    found: dict[str, list[str]] = {}
    for group, other in zip(ours, theirs, strict=True):
        other = _settings(other)
        for key, value in _settings(group).items():
            if key in other and not _same(value, other[key]):
                text = f'{key} {_show(other[key])} (config: {_show(value)})'
                found.setdefault(key, []).append(text)
    return [
        first + (f' and in {len(rest)} more groups' if rest else '')
        for first, *rest in found.values()
    ]


def _overridden_schedule(schedulers: list, states: list[Mapping]) -> list[str]:
    """Settings of the schedules that differ, apart from how far these are."""
    return [
        f'param_scheduler.{key} {_show(state[key])} (config: {_show(value)})'
        for scheduler, state in zip(schedulers, states, strict=True)
        for key, value in scheduler.state_dict().items()
        if key in state and key not in _PROGRESS and not _same(value, state[key])
    ]


def _take_settings_of_config(runner: Runner, checkpoint: dict) -> None:
    """Put into a checkpoint what the optimizer and the schedule would be by now.

    The new schedules are stepped to the place of the checkpoint, one after the other;
    those that follow a metric begin anew.
    """
    wrapper, state = runner.optim_wrapper, checkpoint['optimizer']
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of schedules that step before the optimizer
        for scheduler in runner.param_schedulers or ():
            if getattr(scheduler, 'need_val_args', False):
                continue
            place = checkpoint['meta']['epoch' if scheduler.by_epoch else 'iter']
            for _ in range(place):
                scheduler.step()
    state['param_groups'] = [
        {**ours, 'params': theirs['params']}
        for ours, theirs in zip(
            wrapper.optimizer.param_groups, state['param_groups'], strict=True
        )
    ]
    # mmengine's record of the rates without those of the groups.
    state['base_param_settings'] = wrapper.base_param_settings
    checkpoint['param_schedulers'] = [
        scheduler.state_dict() for scheduler in runner.param_schedulers or ()
    ]


def _settle_average(runner: Runner, checkpoint: dict) -> None:
    """Go on from the weights that were trained where nothing averages them any more."""
    average = checkpoint.get('ema_state_dict')
    if average is None or any(isinstance(hook, EMAHook) for hook in runner.hooks):
        return
    checkpoint['state_dict'] = {
        name.removeprefix('module.'): value
        for name, value in average.items()
        if name.startswith('module.')
    }
    runner.logger.warning(
        'The checkpoint holds a moving average of the weights, and this run has no EMA '
        'hook: it goes on from the weights that were trained, without the average.'
    )


def _log_changes(
    runner: Runner, checkpoint: dict, before: Mapping, now: Mapping
) -> None:
    """Log what the config changes, and whether anything is left to train."""
    meta, info = checkpoint['meta'], checkpoint['message_hub']['runtime_info']
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    unit, length = ('epoch', 'max_epochs') if by_epoch else ('iter', 'max_iters')
    longest = getattr(runner, length)
    changes = [
        f'{name} is {value}, it was {old}'
        for name, value, old in (
            (f'train_cfg.{length}', longest, info.get(length, longest)),
            *(
                (f'optim_wrapper.{key}', now[key], before[key])
                for key in before.keys() & now.keys() & {'accumulative_counts'}
            ),
        )
        if value != old
    ]
    if changes:
        runner.logger.info(f'Changed since the checkpoint: {"; ".join(changes)}.')
    seed = (runner.cfg.get('randomness') or {}).get('seed')
    if None not in (seed, meta.get('seed')) and seed != meta['seed']:
        runner.logger.info(  # mmengine warns that they differ
            f'The seed stays that of the checkpoint, {meta["seed"]}, since the images '
            f'of an epoch follow from it; randomness.seed={seed} is not used.'
        )
    loop = checkpoint.get('training_state', {}).get('loop', {})
    if meta[unit] >= longest:
        runner.logger.warning(
            f'The run is finished: the checkpoint is of {unit} {meta[unit]}, and '
            f'train_cfg.{length} is {longest}. To train longer, add --cfg-options '
            f'train_cfg.{length}={2 * longest}.'
        )
    elif loop.get('stop_training') and _stops_early(runner):
        runner.logger.warning(
            f'The run is finished: early stopping ended it in {unit} {meta[unit]}. To '
            'train longer, remove EarlyStoppingHook from custom_hooks.'
        )


def _stops_early(runner: Runner) -> bool:
    return any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks)


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two settings are equal, as numbers of another machine are."""
    ours, theirs = _plain(ours), _plain(theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-9)
    return ours == theirs


def _plain(value: Any) -> Any:
    """A setting, whether it went through a file or not."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    value = _plain(value)
    return f'{value:g}' if isinstance(value, float) else str(value)
