"""Stop before a step that would ruin the weights, and say what led to it."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_rfdetr.checkpoints import CheckpointError, save_checkpoint_file

from .plain import plain_entries
from .random_state import capture_random_state, restore_random_state


class NonFiniteError(RuntimeError):
    """A loss or a gradient is infinite or not a number."""


@dataclass
class MicroBatch:
    """A batch whose gradient goes into the next optimizer step."""

    iteration: int
    data: dict
    random_state: dict
    loss: Tensor | None = None


@HOOKS.register_module()
class RFDETRNonFiniteHook(Hook):
    """End the run before an optimizer step with a non-finite loss or gradient.

    All processes end alike. The error names the images, the loss terms, and the first
    module whose output was not finite; a dump in the work folder holds the weights, the
    batches (images, boxes and labels) and the random states.

    It watches ``RFDETRAmpOptimWrapper``. In float16 a gradient that overflows is the
    loss scale's business, so there only the loss is watched.

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

    def before_train_iter(self, runner: Runner, batch_idx, data_batch=None) -> None:
        """Keep the batch until its gradient has been used."""
        if not self._is_watching:
            return
        state = capture_random_state()
        self._batches.append(MicroBatch(runner.iter, data_batch, state))

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
        bad = (~torch.isfinite(torch.stack(values)).all()).int()
        if get_world_size() > 1:
            all_reduce(bad, 'max')
        if bad:
            self._handle()
        self._batches.clear()
        return not bad

    def _handle(self) -> None:
        runner = self._runner
        model = _bare(runner.model)
        own = [describe(model, batch) for batch in self._batches]
        found = [entry for rank in all_gather_object(own) for entry in rank]
        guilty = [entry for entry in found if entry['what']] or found
        gradients = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and not parameter.grad.isfinite().all()
        ]
        text = '\n'.join(map(_say, guilty))
        where = f'Iteration {runner.iter + 1}, epoch {runner.epoch + 1}'
        if not guilty[0]['what']:
            text += f'\n  gradients that are not finite: {_some(gradients)}'
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

    def _dump(self, runner: Runner, model: nn.Module) -> str:
        name = f'non_finite_iter_{runner.iter + 1}_rank_{get_rank()}.pth'
        path = Path(runner.work_dir, name)
        dump = dict(
            state_dict=model.state_dict(),
            meta=dict(cfg=runner.cfg.pretty_text, iter=runner.iter),
            batches=[
                dict(
                    iteration=batch.iteration,
                    random_state=batch.random_state,
                    inputs=batch.data['inputs'],
                    samples=[
                        _sample_to_plain(sample)
                        for sample in batch.data['data_samples']
                    ],
                )
                for batch in self._batches
            ],
        )
        try:
            save_checkpoint_file(dump, path)
        except CheckpointError as error:
            return f'No dump: {error}'
        return f'Dump: {path}'


@torch.no_grad()
def describe(model: nn.Module, batch: MicroBatch) -> dict:
    """Compute the losses of a batch once more and find where they stop being finite.

    Args:
        model: the model, whose weights are those that the losses came from.
        batch: the batch and the random state that it met.

    Returns:
        ``images`` (ids and paths), ``terms`` (the loss terms), ``module`` (the first
        one whose output was not finite, or None), and ``what``: whether anything was
        not finite before the gradient.
    """
    names = {module: name for name, module in model.named_modules()}
    first: list[str] = []

    def look(module, inputs, output) -> None:
        if not first and not _is_finite(output):
            first.append(names[module] or type(module).__name__)

    handles = [module.register_forward_hook(look) for module in names]
    before = capture_random_state()
    restore_random_state(batch.random_state)
    try:
        data = model.data_preprocessor(batch.data, True)
        _, terms = model.parse_losses(model(**data, mode='loss'))
    finally:
        restore_random_state(before)
        for handle in handles:
            handle.remove()
    terms = {name: float(value) for name, value in terms.items()}
    is_bad = first or not all(map(math.isfinite, terms.values()))
    if batch.loss is not None and not batch.loss.isfinite():
        is_bad = True
    return dict(
        images=[
            f'{sample.get("img_id")} ({sample.get("img_path")})'
            for sample in batch.data['data_samples']
        ],
        terms=terms,
        module=first[0] if first else None,
        what=bool(is_bad),
    )


def _is_finite(output) -> bool:
    """Whether all floating-point tensors in a module's output are finite."""
    if isinstance(output, Tensor):
        return not output.is_floating_point() or bool(output.isfinite().all())
    if isinstance(output, dict):
        return all(map(_is_finite, output.values()))
    if isinstance(output, list | tuple):
        return all(map(_is_finite, output))
    return True


def _say(entry: dict) -> str:
    terms = ', '.join(f'{name} {value:.4g}' for name, value in entry['terms'].items())
    lines = [f'  images: {", ".join(entry["images"])}', f'  loss terms: {terms}']
    if entry['module'] is not None:
        lines.append(f'  first module with an output not finite: {entry["module"]}')
    return '\n'.join(lines)


def _some(names: list[str], count: int = 3) -> str:
    more = len(names) - count
    return ', '.join(names[:count]) + (f' and {more} more' if more > 0 else '')


def _sample_to_plain(sample) -> dict:
    """Metainfo, boxes and labels of a sample; masks are left out."""
    metainfo, _ = plain_entries(sample.metainfo)
    instances = sample.gt_instances
    boxes = getattr(instances.bboxes, 'tensor', instances.bboxes)
    return dict(metainfo=metainfo, bboxes=boxes, labels=instances.labels)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
