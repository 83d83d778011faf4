"""What was trained beside what will be, compared before a run is resumed."""

import glob
import os
import warnings
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import PureWindowsPath
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from ..checkpoints.layout import class_names
from ..class_names import compare_classes, show_classes
from ..data.wrappers import metainfo_of
from ..errors import CheckpointError, ResumeError, list_names
from ..ops.unwrapped import unwrap_model
from .serialise import restore_log, serialise

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
        each group of the optimizer). Nothing for several optimizers, which are not
        compared.
    """
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        return {}
    parameters = unwrap_model(runner.model).named_parameters()
    names = {id(parameter): name for name, parameter in parameters}
    return dict(
        optimizer=type(wrapper.optimizer).__name__,
        param_schedulers=[
            type(entry).__name__ for entry in runner.param_schedulers or ()
        ],
        parameters=[
            [names.get(id(parameter)) for parameter in group['params']]
            for group in wrapper.optimizer.param_groups
        ],
    )


def find_last_checkpoint(runner: Runner, folder: str, pattern: str) -> str | None:
    """Follow the pointer of a work folder, which may have been moved or copied.

    Args:
        runner: of the work folder.
        folder: where the run writes its checkpoints.
        pattern: of their names; checkpoints without a pointer are warned of.

    Returns:
        The path of the last checkpoint, None without a pointer.

    Raises:
        CheckpointError: there is no such file.
    """
    pointer = os.path.join(runner.work_dir, POINTER)
    if not os.path.isfile(pointer):
        if former := glob.glob(pattern, root_dir=folder):
            runner.logger.warning(
                f'{runner.work_dir} has no file {POINTER}: the run begins anew, and '
                f'overwrites {list_names(sorted(former))} in {folder}. To go on from '
                'one, add --cfg-options load_from=FILE to --resume.'
            )
        return None
    with open(pointer, encoding='utf-8') as file:
        path = file.read().strip()
    if '://' in path:  # a storage, which does not move with the folder
        return path
    beside = os.path.join(folder, PureWindowsPath(path).name)  # of any system
    for found in (beside, os.path.join(runner.work_dir, path)):
        if os.path.isfile(found):
            return found
    raise CheckpointError(
        f'{pointer} names {path!r}, and neither this file nor {beside} is there: write '
        f'the name of a checkpoint in {folder} into it, or add --cfg-options '
        'load_from=FILE to --resume.'
    )


def take_up(runner: Runner, checkpoint: dict, *, folder: str, settings: str) -> None:
    """Compare a checkpoint with the run that is to go on from it, and prepare both.

    Differences with which a run can go on are logged. Nothing is loaded where an error
    is raised; the rest is left to mmengine, which expects objects of its own.

    Args:
        runner: with everything built.
        checkpoint: as mmengine loads it; changed.
        folder: where the run writes its checkpoints.
        settings: whose learning rates, decay and schedule count, ``'checkpoint'`` or
            ``'config'``.

    Raises:
        CheckpointError: it is damaged or holds no run.
        ResumeError: its classes, parameters or optimizer are others than those of this
            run, or its schedule, or its images in an iteration.
    """
    meta, loop = checkpoint.get('meta', {}), runner.train_loop
    if 'message_hub' not in checkpoint or 'epoch' not in meta:
        raise CheckpointError(
            f'The checkpoint holds weights and no run to resume: {_new_run(runner)}.'
        )
    require_kinds(expected(runner, checkpoint), checkpoint)
    now = trained_with(runner)
    before = {**now, **meta.get(TRAINED_WITH, {})}
    has_optimizer = bool(now) and 'optimizer' in checkpoint
    difference = _other_classes(runner, meta) or _other_weights(runner, checkpoint)
    if has_optimizer and not difference:
        difference = _other_optimizer(checkpoint, before, now)
    if difference:
        raise ResumeError(
            f'{difference}, so the run cannot be resumed: {_new_run(runner)}.'
        )
    state = checkpoint.get('training_state')
    if state is not None and not hasattr(loop, 'load_state_dict'):
        raise CheckpointError(
            f'The checkpoint was written by RFDETRTrainLoop, and {type(loop).__name__} '
            'cannot continue it: add --cfg-options train_cfg.type=RFDETRTrainLoop.'
        )
    if has_optimizer:
        _settle(runner, checkpoint, before, now, settings)
    lacking = [] if 'optimizer' in checkpoint else ['state of the optimizer']
    _settle_average(runner, checkpoint)
    _prepare_for_mmengine(runner, checkpoint, folder)
    if state is not None:
        loop.load_state_dict(state['loop'])
        for name, parameter in unwrap_model(runner.model).named_parameters():
            if name in state['gradients']:
                parameter.grad = state['gradients'][name].to(parameter)
    elif hasattr(loop, 'load_state_dict'):
        lacking += ['random states', 'place in an epoch']
    if lacking:
        runner.logger.warning(
            f'The checkpoint has no {", ".join(lacking)}: the run goes on without.'
        )
    _log_what_is_left(runner, checkpoint)


def expected(runner: Runner, checkpoint: Mapping) -> dict:
    """What this run would write where ``checkpoint`` has entries, or the like of it."""
    info, schedulers = (
        checkpoint['message_hub']['runtime_info'],
        runner.param_schedulers,
    )
    scores = {key: 0.0 for key in info if key.startswith('best_score')}
    weights = unwrap_model(runner.model).state_dict()
    is_list = isinstance(schedulers, list)  # and no dict, for several optimizers
    loop = getattr(runner.train_loop, 'state_dict', dict)()
    state = dict.fromkeys(('step', 'exp_avg', 'exp_avg_sq'), 0.0)  # as Adam has it
    states = checkpoint.get('optimizer', {}).get('state', ())
    return dict(
        meta=dict(epoch=0, iter=0),
        message_hub=dict(log_scalars={}, runtime_info={'keep_ckpt_ids': [], **scores}),
        optimizer=dict(
            runner.optim_wrapper.state_dict(), state=dict.fromkeys(states, state)
        ),
        param_schedulers=is_list and [entry.state_dict() for entry in schedulers],
        ema_state_dict={f'module.{name}': weights[name] for name in weights},
        training_state=dict(loop=loop, gradients={}),
    )


def require_kinds(own: Any, other: Any, name: str = '') -> None:
    """Refuse numbers, tensors, texts and containers that have become something else.

    Args:
        own: as this run has it; None, booleans and what it lacks may be anything.
        other: as the checkpoint has it.
        name: of the entry.

    Raises:
        ValueError: naming the first such entry.
    """
    kinds = (bool, Tensor, str, Mapping, list | tuple, int | float | Tensor)
    kind = next((kind for kind in kinds if isinstance(own, kind)), None)
    if kind in (None, bool):
        return
    if not isinstance(other, kind) or (kind is Mapping and own and not other):
        raise ValueError(f'{name} is {other!r:.50}')
    if kind is Mapping:
        for key in own.keys() & other.keys():
            require_kinds(own[key], other[key], f'{name}.{key}'.lstrip('.'))
    elif kind == list | tuple:
        for index, (mine, theirs) in enumerate(zip(own, other, strict=False)):
            if theirs is not None:  # as generators of random numbers may say
                require_kinds(mine, theirs, f'{name}[{index}]')


def _new_run(runner: Runner) -> str:
    return (
        'start a new one from the weights with --cfg-options '
        f'load_from={runner._load_from or "FILE"} and without --resume'
    )


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
    own = unwrap_model(runner.model).state_dict()
    theirs, ours = (
        {name: tuple(value.shape) for name, value in state.items()}
        for state in (checkpoint['state_dict'], own)
    )
    names = sorted(ours.keys() | theirs.keys())
    others = [name for name in names if ours.get(name) != theirs.get(name)]
    if not others:
        return None
    found, wanted = (shapes.get(others[0], 'missing') for shapes in (theirs, ours))
    return (
        f'The model has other weights than the checkpoint ({list_names(others)}): '
        f'{others[0]} is {found} in the checkpoint and {wanted} in the model'
    )


def _other_optimizer(checkpoint: Mapping, before: Mapping, now: Mapping) -> str | None:
    """Say how the optimizer differs from the one whose state a checkpoint holds."""
    if before['optimizer'] != now['optimizer']:
        return (
            f'The checkpoint was trained by {before["optimizer"]}, and this run has '
            f'{now["optimizer"]}'
        )
    ours = [*map(len, now['parameters'])]
    theirs = [len(group['params']) for group in checkpoint['optimizer']['param_groups']]
    if ours != theirs:
        return (
            f'The optimizer of the checkpoint has {sum(theirs)} parameters in '
            f'{len(theirs)} groups, and that of this run {sum(ours)} in {len(ours)}'
        )
    names = zip(chain(*before['parameters']), chain(*now['parameters']), strict=True)
    other = next((pair for pair in names if pair[0] != pair[1]), None)
    return other and (
        'The optimizer of the checkpoint has {} where that of this run has {}'
    ).format(*other)


def _settle(
    runner: Runner, checkpoint: dict, before: Mapping, now: Mapping, settings: str
) -> None:
    """Let the settings of the checkpoint or those of the config count, and say so."""
    schedulers = runner.param_schedulers or []
    states = checkpoint.get('param_schedulers', [])
    overridden = _differences(
        map(_settings, runner.optim_wrapper.optimizer.param_groups),
        map(_settings, checkpoint['optimizer']['param_groups']),
    )
    kinds, own_kinds = before['param_schedulers'], now['param_schedulers']
    is_same_schedule = kinds == own_kinds and len(states) == len(schedulers)
    if is_same_schedule:
        ours = [scheduler.state_dict() for scheduler in schedulers]
        overridden += _differences(ours, states, 'param_scheduler.')
    else:
        first, second = (', '.join(names) or 'none' for names in (kinds, own_kinds))
        overridden.append(f'param_scheduler {first} (config: {second})')
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
            f'place, or {_new_run(runner)}.'
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


def _differences(
    ours: Iterable[Mapping], theirs: Iterable[Mapping], prefix: str = ''
) -> list[str]:
    """Settings that two lists of the same things do not share, the first of each.

    How far a schedule is does not count, and no more what only one of the two has:
    versions of torch add settings.
    """
    found: dict[str, str] = {}
    for own, other in zip(ours, theirs, strict=True):
        for key in own.keys() & other.keys() - _PROGRESS:
            values = _show(other[key]), _show(own[key])
            if values[0] != values[1]:
                text = '{}{} {} (config: {})'.format(prefix, key, *values)
                found.setdefault(key, text)
    return sorted(found.values())


def _show(value: Any) -> str:
    """A setting as a text, the same for numbers that rounding makes different."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f'[{", ".join(map(_show, value))}]'
    return f'{value:.9g}' if isinstance(value, float) else str(value)


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


def _log_what_is_left(runner: Runner, checkpoint: Mapping) -> None:
    """Log whether anything is left to train."""
    meta = checkpoint['meta']
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    unit, length = ('epoch', 'max_epochs') if by_epoch else ('iter', 'max_iters')
    longest = getattr(runner, length)
    if meta[unit] >= longest or getattr(runner.train_loop, 'stop_training', False):
        runner.logger.warning(
            f'The run is finished: the checkpoint is of {unit} {meta[unit]}, and '
            f'train_cfg.{length} is {longest}. To train longer, add --cfg-options '
            f'train_cfg.{length}={2 * longest}, and remove EarlyStoppingHook from '
            'custom_hooks if it ended the run.'
        )


def _prepare_for_mmengine(runner: Runner, checkpoint: dict, folder: str) -> None:
    """Make of a checkpoint what mmengine expects, with the paths of this run."""
    meta, hub = checkpoint['meta'], checkpoint['message_hub']
    log, info = hub['log_scalars'], hub['runtime_info']
    if not any(isinstance(entry, HistoryBuffer) for entry in log.values()):
        hub['log_scalars'] = restore_log(log)
    # The run's own config stays, which mmengine would replace by a stranger's.
    info.pop('cfg', None)
    # mmengine warns of what is to be resumed and not there.
    hub['resumed_keys'] = dict.fromkeys((*log, *info), True)
    # mmengine compares pickles, which differ for equal values.
    dataset = runner.train_dataloader.dataset
    if serialise(metainfo_of(dataset)) == meta.get('dataset_meta', {}):
        meta['dataset_meta'] = getattr(dataset, 'metainfo', None)
    # Paths follow a folder that was moved or copied.
    source = os.path.dirname(os.path.abspath(runner._load_from or runner.work_dir))
    before = os.path.dirname(info.get('last_ckpt') or '')
    if source != os.path.abspath(folder):
        return
    for key, path in info.items():
        is_path = key.startswith(('last_ckpt', 'best_ckpt'))
        if is_path and isinstance(path, str) and os.path.dirname(path) == before:
            info[key] = os.path.join(source, os.path.basename(path))
