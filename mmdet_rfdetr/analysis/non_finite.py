"""Stop before a step that would ruin the weights, and say what led to it."""

from pathlib import Path

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import CheckpointError, NonFiniteError
from ..ops.unwrapped import unwrap_model
from .diagnosis import (
    BAD_MATCHING,
    Diagnosis,
    diagnose,
    non_finite_gradients,
    random_state,
)
from .dump import MicroBatch, write_dump

# The loss scale of float16 halves with each overflow; below this none is left to learn.
_LEAST_SCALE = 2.0**-20


@HOOKS.register_module()
class RFDETRNonFiniteHook(Hook):
    """End the run before an optimizer step with numbers that are not finite.

    It looks at the losses, the gradients and the matching costs. All processes end
    alike. The error names the images, the loss terms, and the first module whose
    output was not finite; a dump in the work folder, which
    ``tools/replay_non_finite.py`` computes again, holds the weights, the batches
    (images and objects) and the random states.

    It watches ``RFDETRAmpOptimWrapper``. In float16 a gradient that overflows is the
    loss scale's business, so there the gradients are left to it, unless it has fallen
    so far that no step will ever be made.

    Args:
        skip: leave out up to so many steps, with a warning each, before giving up.
    """

    def __init__(self, skip: int = 0) -> None:
        self.skip = skip
        self.skipped = 0
        self._batches: list[MicroBatch] = []
        self._is_watching = False

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer wrapper's steps."""
        if not hasattr(runner.optim_wrapper, 'guard'):
            runner.logger.warning(
                'Losses and gradients that are not finite go unnoticed: '
                f'{type(runner.optim_wrapper).__name__} cannot be watched. Set '
                'optim_wrapper.type=RFDETRAmpOptimWrapper.'
            )
            return
        self._runner = runner
        self._is_watching = True
        runner.optim_wrapper.guard = self
        model = unwrap_model(runner.model)
        self._handle = model.register_forward_hook(self._see_costs)

    def after_train(self, runner: Runner) -> None:
        """Look at the model's losses no longer."""
        if self._is_watching:
            self._handle.remove()

    def _see_costs(self, model: nn.Module, inputs: tuple, losses: dict) -> None:
        """Take note of the matching of the present batch, before its loss is seen."""
        if model.training and self._batches and self._batches[-1].loss is None:
            costs = getattr(losses, 'non_finite_costs', False)
            self._batches[-1].bad_matching = costs

    def before_train_iter(self, runner: Runner, batch_idx, data_batch=None) -> None:
        """Keep the batch until its gradient has been used."""
        if not self._is_watching:
            return
        self._batches.append(MicroBatch(runner.iter, data_batch, random_state()))

    def see_loss(self, loss: Tensor) -> None:
        """Take note of the loss of the present batch."""
        self._batches[-1].loss = loss.detach()

    def may_step(self, gradients: list[Tensor]) -> bool:
        """Whether the optimizer may step; the same on all processes.

        Args:
            gradients: those of the step, empty to watch the losses alone.

        Raises:
            NonFiniteError: it may not, and no more steps are to be skipped.
        """
        losses = [batch.loss for batch in self._batches if batch.loss is not None]
        values = [*losses, *torch._foreach_norm(gradients)] if gradients else losses
        bad = ~torch.isfinite(torch.stack(values)).all()
        for batch in self._batches:
            bad = bad | batch.bad_matching
        bad = (bad | self._has_no_scale()).int()
        if get_world_size() > 1:
            all_reduce(bad, 'max')
        if bad:
            self._stop_or_skip()
        self._batches.clear()
        return not bad

    def _has_no_scale(self) -> bool:
        """Whether the loss scale of float16 has fallen to nothing."""
        scaler = self._runner.optim_wrapper.loss_scaler
        return scaler is not None and scaler.get_scale() < _LEAST_SCALE

    def _stop_or_skip(self) -> None:
        runner = self._runner
        model = unwrap_model(runner.model)
        own = [self._diagnose(model, batch) for batch in self._batches]
        found = [each for rank in all_gather_object(own) for each in rank]
        guilty = [each for each in found if not each.is_finite]
        text = '\n'.join(map(str, guilty or found))
        note = runner.message_hub.get_info('step', '')
        where = f'Iteration {runner.iter + 1}, epoch {runner.epoch + 1}{note}'
        if not guilty and self._has_no_scale():
            text += (
                '\n  every gradient overflowed: the loss scale of float16 is used up'
            )
        elif not guilty:
            text += ''.join(f'\n  {line}' for line in non_finite_gradients(model))
        self.skipped += 1
        if self.skipped <= self.skip:
            runner.logger.warning(
                f'{where}: a loss or gradient is not finite; the step is skipped '
                f'({self.skipped} of at most {self.skip}).\n{text}'
            )
            return
        path = self._dump(runner, model)
        raise NonFiniteError(
            f'{where}: a loss or gradient is not finite; the optimizer step was not '
            f'made.\n{text}\n{path}\nTo leave out up to 10 such steps: --cfg-options '
            'default_hooks.non_finite.skip=10'
        )

    @staticmethod
    def _diagnose(model: nn.Module, batch: MicroBatch) -> Diagnosis:
        found = diagnose(model, batch.data, batch.random_state)
        if batch.loss is not None and not batch.loss.isfinite():
            # Whatever it was, it may not happen again.
            found.terms['loss'] = float(batch.loss)
        if batch.bad_matching and BAD_MATCHING not in found.problems:
            found.problems.append(BAD_MATCHING)
        return found

    def _dump(self, runner: Runner, model: nn.Module) -> str:
        name = f'non_finite_iter_{runner.iter + 1}_rank_{get_rank()}.pth'
        path = Path(runner.work_dir, name)
        counts = runner.optim_wrapper._accumulative_counts
        try:
            write_dump(path, model, self._batches, counts)
        except CheckpointError as error:
            return f'No dump: {error}'
        config = Path(runner.cfg.filename or 'config.py').name
        return (
            f'Dump: {path}; compute it again with\n  python tools/replay_non_finite.py '
            f'{Path(runner.work_dir, config)} {path}'
        )
