"""Checkpoints that are complete, and hold nothing but tensors and plain values."""

import functools
import math
import os
from collections.abc import Callable

from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from ..checkpoints.layout import entries_that_fit
from ..checkpoints.writing import remove_leftovers, replacing
from ..data.wrappers import metainfo_of
from ..errors import CheckpointError, ExplainedError, RuinedWeightsError, SettingError
from ..ops.unwrapped import unwrap_model
from .finite_weights import infinite_buffers, require_finite
from .resume import POINTER, TRAINED_WITH, find_last_checkpoint, take_up, trained_with
from .serialise import serialise

INTERRUPTED = 'interrupted.pth'


class CompleteFiles(LocalBackend):
    """mmengine's local files, except that what is written replaces a file at once."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes, completely or not at all."""
        with replacing(filepath) as file:
            file.write(obj)


register_backend('rfdetr_local', CompleteFiles, force=True)


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
    # Whether the checkpoint that is resumed has been taken up.
    _is_resumed = False

    def __init__(self, *args, resume_settings: str = 'checkpoint', **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if resume_settings not in ('checkpoint', 'config'):
            raise SettingError(
                f'default_hooks.checkpoint.resume_settings={resume_settings!r} must be '
                "'checkpoint' or 'config'."
            )
        self.resume_settings = resume_settings
        # What mmengine does not know would end the run at the first checkpoint.
        if self.args:
            raise ExplainedError(
                f'default_hooks.checkpoint has no option {min(self.args)!r}: correct '
                'or remove it.'
            )

    def before_run(self, runner: Runner) -> None:
        """Find the checkpoint that is to be resumed, and be the first to see it."""
        if not runner._resume:
            return
        if runner._load_from is None:
            folder, pattern = self._folder(runner), self.filename_tmpl.format('*')
            runner._load_from = find_last_checkpoint(runner, folder, pattern)
        first = Hook()
        first.after_load_checkpoint = self.after_load_checkpoint
        # A new list, since mmengine is going through the present one.
        runner._hooks = [first, *runner._hooks]
        file = runner._load_from or 'The checkpoint'
        remedy = f', or its weights alone: load_from={file} without --resume'
        runner.resume = entries_that_fit(file, remedy)(runner.resume)

    def _folder(self, runner: Runner) -> str:
        """Where mmengine will save, which it only decides when training begins."""
        if self.out_dir in (None, runner.work_dir):
            return runner.work_dir
        return os.path.join(self.out_dir, os.path.basename(runner.work_dir))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take up a run that is resumed; what is loaded later is only loaded."""
        if not runner._resume or runner._has_loaded or self._is_resumed:
            return
        self._is_resumed = True
        folder = self._folder(runner)
        take_up(runner, checkpoint, folder=folder, settings=self.resume_settings)
        self._last_step = (checkpoint.get('training_state') or {}).get('last_step')

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and clear away what killed processes left there."""
        super().before_train(runner)
        if self.backend_args is None and isinstance(self.file_backend, LocalBackend):
            self.backend_args = dict(backend='rfdetr_local')
            self._on_all_ranks(lambda: self._prepare(runner), None)
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
        folders = {self.out_dir, runner.work_dir}
        if removed := [name for folder in folders for name in remove_leftovers(folder)]:
            runner.logger.info(
                f'Removed what was not written to the end: {", ".join(removed)}.'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn everything into tensors and plain values; last of all hooks.

        Raises:
            RuinedWeightsError: what was learned is not finite.
        """
        require_finite(checkpoint, self._infinite)
        if self._training_state is not None:
            checkpoint['training_state'] = self._training_state
        meta, left_out = checkpoint['meta'], {}
        if 'dataset_meta' in meta:
            meta['dataset_meta'] = metainfo_of(runner.train_dataloader.dataset)
        if 'optimizer' in checkpoint:
            meta[TRAINED_WITH] = trained_with(runner)
        plain = serialise(checkpoint, left_out)
        checkpoint.clear()
        checkpoint.update(plain)
        if left_out:
            names = ', '.join(f'{key} ({kind})' for key, kind in left_out.items())
            runner.logger.warning(
                f'The checkpoint leaves out {names}: it holds plain values only.'
            )

    def after_val_iter(self, runner: Runner, batch_idx: int, *args, **kwargs) -> None:
        """Give up a validation when the run is to end."""
        leave = getattr(runner._train_loop, 'leave_validation_if_asked', None)
        if leave is not None:
            leave(batch_idx)

    def after_val(self, runner: Runner) -> None:
        """Note in the last checkpoint that its epoch is validated, and what is best.

        Early stopping, the last hook after a validation, has counted by now.
        """
        step, is_due = self._step(runner), self._has_new_best
        position = getattr(runner._train_loop, 'position', None)
        if position is not None:
            position.validation_due = False
            is_due = step == self._last_step
        if is_due:
            self._save_checkpoint_with_step(runner, step, _progress(runner))

    def save_interrupted(self, runner: Runner) -> str:
        """Save between two iterations, until the next regular checkpoint.

        Returns:
            The path of the checkpoint.
        """
        self._save_as_last(runner, INTERRUPTED, _progress(runner))
        return self.last_ckpt

    def _step(self, runner: Runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, point to it, and only then remove the oldest checkpoint."""
        outdated = self._count_in(runner, step)
        self._last_step, self._has_new_best = step, False
        self._save_as_last(runner, self.filename_tmpl.format(step), meta)
        for name in (*map(self.filename_tmpl.format, outdated), INTERRUPTED):
            self._remove(self.file_backend.join_path(self.out_dir, name))

    def _count_in(self, runner: Runner, step: int) -> list[int]:
        """Count a new checkpoint and return the steps of those that it outdates."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        steps = [*self.keep_ckpt_ids, step]
        kept = steps[-self.max_keep_ckpts :]
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return steps[: -self.max_keep_ckpts]

    @master_only
    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)

    def _save_as_last(self, runner: Runner, name: str, meta: dict) -> None:
        """Save everything under ``name``, and let ``last_checkpoint`` point to it."""
        before = self.last_ckpt
        self._training_state = _training_state(runner, self._last_step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)

        def save() -> None:
            runner.save_checkpoint(
                self.out_dir,
                name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                backend_args=self.backend_args,
            )
            if is_main_process():
                with replacing(os.path.join(runner.work_dir, POINTER)) as file:
                    file.write(self.last_ckpt.encode())

        self._on_all_ranks(save, before)
        self._training_state = None

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best weights, and only then remove the former best ones."""
        if not self.save_best or not hasattr(self, 'file_backend'):
            return  # the latter is made by training
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            if key not in metrics:
                raise SettingError(
                    f'save_best={key!r} is no metric of this validation: choose one of '
                    f'{", ".join(metrics)}.'
                )
            if has_value(metrics[key], rule):
                self._save_if_best(runner, key, metrics[key])
            else:
                runner.logger.warning(
                    f'{key} is {metrics[key]}, which is no score: this is not the best '
                    'checkpoint.'
                )

    def _save_if_best(self, runner: Runner, key: str, score: float) -> None:
        hub, is_one = runner.message_hub, len(self.key_indicators) == 1
        score_name, path_name = (
            name if is_one else f'{name}_{key}' for name in ('best_score', 'best_ckpt')
        )
        best = hub.runtime_info.get(score_name)
        if best is not None and not self.is_better_than[key](score, best):
            return
        former = hub.runtime_info.get(path_name)
        step = self._step(runner)
        name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        path = self.file_backend.join_path(self.out_dir, name)
        hub.update_info(score_name, score)
        hub.update_info(path_name, path)
        self._has_new_best = self.last_ckpt is not None

        save = functools.partial(
            runner.save_checkpoint,
            *(self.out_dir, name),
            save_optimizer=False,
            save_param_scheduler=False,
            meta=_progress(runner),
            backend_args=self.backend_args,
        )
        self._on_all_ranks(save, self.last_ckpt)
        if is_one:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path
        runner.logger.info(f'The best checkpoint, with {score:.4f} {key}, is {name}.')
        # That of a run which this one continues elsewhere stays there.
        if former not in (None, path) and os.path.dirname(former) == self.out_dir:
            self._remove(former)

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


def _training_state(runner: Runner, last_step: int | None) -> dict | None:
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
    return dict(loop=loop.state_dict(), gradients=gradients, last_step=last_step)


def has_value(score: object, rule: str | None = 'greater') -> bool:
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


def _progress(runner: Runner) -> dict:
    """Where a run is, for the meta of a checkpoint."""
    return dict(epoch=runner.epoch, iter=runner.iter)
