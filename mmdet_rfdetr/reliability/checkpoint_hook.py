"""Checkpoints that are complete, and hold nothing but tensors and plain values."""

import glob
import os
from collections.abc import Callable

from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, is_main_process, master_only
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmdet_rfdetr.checkpoints.layout import entries_that_fit
from mmdet_rfdetr.checkpoints.writing import remove_leftovers, replacing
from mmdet_rfdetr.data.wrappers import metainfo_of

from ..errors import (
    CheckpointError,
    ExplainedError,
    RuinedWeightsError,
    SettingError,
    list_names,
)
from ..ops.unwrapped import unwrap_model
from ..training.class_names import name_classes, warn_of_other_classes
from .checkpoint_files import BACKEND, FormerFiles
from .entry_types import check_own
from .finite_weights import infinite_buffers, require_finite
from .resume import (
    POINTER,
    TRAINED_WITH,
    compare,
    find_last_checkpoint,
    follow_move,
    trained_with,
)
from .selection import check_metric_names, has_value, pause_early_stopping
from .serialise import log_from_plain, log_to_plain, plain_entries

INTERRUPTED = 'interrupted.pth'


class _Before(Hook):
    """Lets a hook look at a checkpoint before all others do.

    Args:
        look: called with the runner and the checkpoint.
    """

    def __init__(self, look: Callable[[Runner, dict], None]) -> None:
        self.look = look

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at it."""
        self.look(runner, checkpoint)


@HOOKS.register_module()
class RFDETRCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, for runs that may end at any moment.

    It takes the same arguments, and ``resume_settings``, and gives the files the same
    names. What differs:

    - a checkpoint, and ``last_checkpoint``, is written beside the old one, flushed to
      the disk, and renamed;
    - an old checkpoint is removed when the new one is complete and not before, so
      there is room for one more;
    - a disk that is full or a folder that cannot be written to ends the run, on all
      ranks, with a sentence that names the last complete checkpoint;
    - weights, averages and moments of the optimizer that are not finite are never
      written: they end the run, on all ranks, with a sentence;
    - a checkpoint holds tensors and plain values only, so that
      ``torch.load(weights_only=True)`` reads it as it is;
    - with ``RFDETRTrainLoop`` it holds all that a run needs to go on with the same
      numbers; it is written once more after the validation of its epoch;
    - before a run is resumed, its checkpoint is compared with it; what cannot go on is
      an error, and what the checkpoint overrides is logged;
    - a work folder that was moved or copied is resumed where it lies now.

    With ``backend_args`` or another ``out_dir`` than a local folder it is up to that
    storage whether files are complete.

    Args:
        *args: as for mmengine's.
        resume_settings: whose settings of the optimizer (learning rates, decay, ...)
            and of the schedule count in a resumed run, those of the
            ``'checkpoint'`` or those of the ``'config'``.
        **kwargs: as for mmengine's.

    Raises:
        SettingError: ``resume_settings`` is none of the two.
        ExplainedError: there is no such option.
    """

    # What the present save adds, gathered from all processes.
    _training_state: dict | None = None
    _last_step: int | None = None
    # Whether there is a best one that no checkpoint of the run knows.
    _has_new_best = False
    # Buffers that are not finite from the start.
    _infinite: frozenset[str] = frozenset()

    # Whether the checkpoint that is resumed has been compared with this run.
    _has_compared = False

    def __init__(self, *args, resume_settings: str = 'checkpoint', **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if resume_settings not in ('checkpoint', 'config'):
            raise SettingError(
                f'default_hooks.checkpoint.resume_settings={resume_settings!r} must be '
                "'checkpoint' or 'config'."
            )
        self.resume_settings = resume_settings
        self._go_on: Callable[[], None] = lambda: None
        # What mmengine does not know would end the run at the first checkpoint.
        if self.args:
            raise ExplainedError(
                f'default_hooks.checkpoint has no option {min(self.args)!r}: correct '
                'or remove it.'
            )

    def before_run(self, runner: Runner) -> None:
        """Prepare for a checkpoint, that of a run that is to be resumed above all."""
        name_classes(runner)
        if not runner._resume:
            return
        if runner._load_from is None:
            folder = self._folder(runner)
            runner._load_from = find_last_checkpoint(runner.work_dir, folder)
            former = glob.glob(self.filename_tmpl.format('*'), root_dir=folder)
            if runner._load_from is None and former:
                runner.logger.warning(
                    f'{runner.work_dir} has no file {POINTER}: the run begins anew, '
                    f'and overwrites {list_names(sorted(former))} in {folder}. To go '
                    'on from one, add --cfg-options load_from=FILE to --resume.'
                )
        # A new list, since mmengine is going through the present one.
        runner._hooks = [_Before(self._compare), *runner._hooks]

    def _folder(self, runner: Runner) -> str:
        """Where mmengine will save, which it only decides when training begins."""
        if self.out_dir in (None, runner.work_dir):
            return runner.work_dir
        return os.path.join(self.out_dir, os.path.basename(runner.work_dir))

    def _compare(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume or runner._has_loaded or self._has_compared:
            return
        with entries_that_fit():
            check_own(checkpoint)
            compare(runner, checkpoint, settings=self.resume_settings)
        self._has_compared = True
        # The run's own config stays, which mmengine would replace by a stranger's.
        checkpoint['message_hub']['runtime_info'].pop('cfg', None)
        source = os.path.dirname(os.path.abspath(runner._load_from or runner.work_dir))
        if source == os.path.abspath(self._folder(runner)):
            follow_move(checkpoint['message_hub']['runtime_info'], source)

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and clear away what killed processes left there."""
        check_metric_names(runner)
        super().before_train(runner)
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            runner.logger.warning(
                'IterBasedTrainLoop has one epoch, the whole run, and a checkpoint at '
                'its end: for more, set default_hooks.checkpoint.by_epoch=False and '
                'its interval in iterations.'
            )
        if self.backend_args is None and isinstance(self.file_backend, LocalBackend):
            self.backend_args = dict(backend=BACKEND)
            self._on_all_ranks(lambda: self._prepare(runner), None)
        self.file_backend = FormerFiles(self.file_backend, self.out_dir)
        self._infinite = infinite_buffers(unwrap_model(runner.model))

    @master_only
    def _prepare(self, runner: Runner) -> None:
        try:
            os.makedirs(self.out_dir, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f'{self.out_dir} cannot be made ({error.strerror}): choose another '
                'work_dir.'
            ) from error
        removed = {
            name
            for folder in (self.out_dir, runner.work_dir)
            for name in remove_leftovers(folder)
        }
        if removed:
            runner.logger.info(
                'Removed what an earlier process did not finish writing: '
                f'{", ".join(sorted(removed))}.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn everything into tensors and plain values; last of all hooks.

        Raises:
            RuinedWeightsError: what was learned is not finite.
        """
        require_finite(checkpoint, self._infinite)
        if self._training_state is not None:
            checkpoint['training_state'] = self._training_state
        if 'dataset_meta' in checkpoint['meta']:
            metainfo = metainfo_of(runner.train_dataloader.dataset)
            checkpoint['meta']['dataset_meta'] = metainfo
        if 'optimizer' in checkpoint:
            checkpoint['meta'][TRAINED_WITH] = trained_with(runner)
        hub = checkpoint['message_hub']
        hub['log_scalars'] = log_to_plain(hub['log_scalars'])
        dropped = {}
        for entries in (hub['runtime_info'], checkpoint['meta'], checkpoint):
            plain, others = plain_entries(entries)
            entries.clear()
            entries.update(plain)
            dropped |= others
        hub = checkpoint['message_hub']
        hub['resumed_keys'] = {
            key: resumed
            for key, resumed in hub['resumed_keys'].items()
            if resumed and (key in hub['log_scalars'] or key in hub['runtime_info'])
        }
        if dropped:
            names = ', '.join(f'{key} ({kind})' for key, kind in dropped.items())
            runner.logger.warning(
                f'The checkpoint leaves out {names}: it holds plain values only.'
            )

    @entries_that_fit()
    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Name the classes of the model; see to a run that is resumed.

        mmengine expects objects of its own in the checkpoint of one.
        """
        name_classes(runner)  # where no before_run comes before
        if not runner._resume:
            warn_of_other_classes(runner, checkpoint)
        if not runner._resume or runner._has_loaded:  # later ones are only loaded
            return
        self._compare(runner, checkpoint)  # where no before_run comes before
        hub = checkpoint['message_hub']
        scalars = hub['log_scalars']
        if all(isinstance(entry, dict) for entry in scalars.values()):
            hub['log_scalars'] = log_from_plain(scalars)
        # mmengine compares pickles, which differ for equal values.
        dataset = runner.train_dataloader.dataset
        plain, _ = plain_entries({'metainfo': metainfo_of(dataset)})
        if plain['metainfo'] == checkpoint['meta'].get('dataset_meta', {}):
            checkpoint['meta']['dataset_meta'] = getattr(dataset, 'metainfo', None)
        self._load_training_state(runner, checkpoint.get('training_state'))

    def _load_training_state(self, runner: Runner, state: dict | None) -> None:
        loop = runner.train_loop
        can_continue = hasattr(loop, 'load_state_dict')
        if state is None:
            if can_continue:
                runner.logger.warning(
                    'The checkpoint holds no random states and no place in an epoch: '
                    'the run goes on, with other random numbers than it would have.'
                )
            return
        if not can_continue:
            raise CheckpointError(
                f'The checkpoint was written by RFDETRTrainLoop, and '
                f'{type(loop).__name__} cannot continue it: add --cfg-options '
                'train_cfg.type=RFDETRTrainLoop.'
            )
        loop.load_state_dict(state['loop'])
        self._last_step = state['last_step']
        for name, parameter in unwrap_model(runner.model).named_parameters():
            if name in state['gradients']:
                parameter.grad = state['gradients'][name].to(parameter)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        """Give up a validation when the run is to end."""
        leave = getattr(runner._train_loop, 'leave_validation_if_asked', None)
        if leave is not None:
            leave(batch_idx)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint; early stopping comes after it."""
        self._go_on = pause_early_stopping(runner, metrics)
        super().after_val_epoch(runner, metrics)

    def after_val(self, runner: Runner) -> None:
        """Note in the last checkpoint that its epoch is validated, and what is best.

        Early stopping, the last hook after a validation, has counted by now.
        """
        self._go_on()
        step, is_due = self._step(runner), self._has_new_best
        position = getattr(runner._train_loop, 'position', None)
        if position is not None:
            position.validation_due = False
            is_due = step == self._last_step
        if is_due:
            self._save_last(runner, step)

    def save_interrupted(self, runner: Runner) -> str:
        """Save between two iterations, until the next regular checkpoint.

        Returns:
            The path of the checkpoint.
        """
        self._save_as_last(runner, INTERRUPTED, _place(runner))
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save what is being trained.

        mmengine calls it once more after a validation, for what is best by then; that
        is left to after_val.
        """
        if step == self._step(runner):
            self._has_new_best = True
        else:
            self._save_last(runner, step, meta)

    def _step(self, runner: Runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter

    def _save_last(self, runner: Runner, step: int, meta: dict | None = None) -> None:
        """Save, point to it, and only then remove the oldest checkpoint."""
        outdated = self._count_in(runner, step)
        self._last_step, self._has_new_best = step, False
        self._save_as_last(
            runner, self.filename_tmpl.format(step), meta or _place(runner)
        )
        if is_main_process():
            names = map(self.filename_tmpl.format, outdated)
            for old in (*names, INTERRUPTED):
                path = self.file_backend.join_path(self.out_dir, old)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
        self.file_backend.remove_outdated()

    def _count_in(self, runner: Runner, step: int) -> list[int]:
        """Count a new checkpoint and return the steps of those that it outdates."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        steps = [*self.keep_ckpt_ids, step]
        kept = steps[-self.max_keep_ckpts :]
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return steps[: -self.max_keep_ckpts]

    def _save_as_last(self, runner: Runner, name: str, meta: dict) -> None:
        """Save everything under ``name``, and let ``last_checkpoint`` point to it."""
        before = self.last_ckpt
        self._training_state = _training_state(runner)
        if self._training_state is not None:
            self._training_state['last_step'] = self._last_step
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)

        def save() -> None:
            runner.save_checkpoint(
                self.out_dir,
                name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
            )
            if is_main_process():
                pointer = os.path.join(runner.work_dir, POINTER)
                with replacing(pointer) as file:
                    file.write(self.last_ckpt.encode())

        self._on_all_ranks(save, before)
        self._training_state = None

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best weights, and only then remove the former best ones."""
        if not self.save_best or not hasattr(self, 'file_backend'):
            return  # the latter is made by training
        scores = dict(metrics)
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            key = next(iter(metrics)) if key == 'auto' else key
            if key not in metrics:
                raise SettingError(
                    f'save_best={key!r} is no metric of this validation: choose one of '
                    f'{", ".join(metrics)}.'
                )
            if not has_value(metrics[key], rule):
                scores[key] = None  # mmengine passes over it
                runner.logger.warning(
                    f'{key} is {metrics[key]}, which is no score: this is not the best '
                    'checkpoint.'
                )
        save = super()._save_best_checkpoint
        self._on_all_ranks(lambda: save(runner, scores), self.last_ckpt)
        # mmengine has one or the other.
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        best = {getattr(self, 'best_ckpt_path', None), *best}
        self.file_backend.remove_outdated(kept=best)

    def _on_all_ranks(self, save: Callable[[], None], complete: str | None) -> None:
        """Save on the main rank; where that fails, stop all ranks.

        Args:
            save: writes the files.
            complete: the last checkpoint before them.
        """
        problem = None
        try:
            save()
        except CheckpointError as error:
            advice = 'make room, and go on with --resume.'
            if isinstance(error, RuinedWeightsError):
                advice = (
                    'go on with --resume; if it happens again, start from its weights '
                    'with a lower learning rate (--cfg-options load_from=FILE '
                    'optim_wrapper.optimizer.lr=RATE).'
                )
            problem = f'{error} ' + (
                f'The last complete checkpoint is {complete}: {advice}'
                if complete
                else 'There is no earlier checkpoint of this run.'
            )
        problem = next(filter(None, all_gather_object(problem)), None)
        if problem is not None:
            raise CheckpointError(problem)


def _training_state(runner: Runner) -> dict | None:
    """What a resumed run needs beside weights and optimizer, from all processes."""
    loop = runner.train_loop
    if not hasattr(loop, 'load_state_dict'):
        return None
    gradients = {}
    if not runner.optim_wrapper.should_update():
        # Each process holds its own part of an unfinished step. With the mean in every
        # process, the mean that the step will take is the same.
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in unwrap_model(runner.model).named_parameters()
            if parameter.grad is not None
        }
        for gradient in gradients.values():
            all_reduce(gradient, 'mean')
    return dict(loop=loop.state_dict(), gradients=gradients)


def _place(runner: Runner) -> dict:
    """Where a run is, for the meta of a checkpoint."""
    return dict(epoch=runner.epoch, iter=runner.iter)
