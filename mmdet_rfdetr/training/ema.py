"""The moving average of the weights, and which weights are evaluated."""

import math

import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.hooks import EMAHook
from mmengine.model import BaseAveragedModel
from mmengine.runner.checkpoint import weights_to_cpu
from torch import nn

from ..checkpoints.layout import entries_that_fit
from ..errors import ExplainedError, SettingError


@MODELS.register_module()
class RFDETREMA(BaseAveragedModel):
    r"""Exponential moving average of parameters and buffers, warmed up by tau.

    The first update copies the model; update n + 1 uses the decay
    :math:`d = \text{decay} (1 - e^{-(n + 1) / \tau})`, as the official package.
    mmdet's ``ExpMomentumEMA(momentum=0.007, gamma=100)`` has the same decay; this
    one updates all tensors in one call, and leaves equal values bit for bit as
    they are (frozen weights do not drift).

    Args:
        model: the model to average.
        decay: decay after the warm-up.
        tau: updates that the warm-up takes; 0 uses ``decay`` throughout.

    Raises:
        SettingError: if ``decay`` is not in [0, 1), or ``tau`` is negative.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.993, tau: float = 100
    ) -> None:
        if not 0 <= decay < 1 or tau < 0:
            raise SettingError(
                f'decay={decay} must be in [0, 1) and tau={tau} not negative'
            )
        super().__init__(model, update_buffers=True)
        self.decay = decay
        self.tau = tau

    def decay_after(self, updates: int) -> float:
        """The decay of the next update when ``updates`` were made."""
        if not self.tau:
            return self.decay
        return self.decay * (1 - math.exp(-(updates + 1) / self.tau))

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the present weights of ``model`` in."""
        source, updates = model.state_dict(), int(self.steps)
        averaged, present = [], []
        for name, tensor in self.avg_parameters.items():
            if updates and tensor.is_floating_point():
                averaged.append(tensor)
                present.append(source[name])
            else:
                tensor.copy_(source[name])
        if averaged:
            torch._foreach_lerp_(averaged, present, 1 - self.decay_after(updates))
        self.steps += 1


@HOOKS.register_module()
class RFDETREMAHook(EMAHook):
    """Keep :class:`RFDETREMA` weights, and evaluate them.

    What differs from mmengine's ``EMAHook``: it updates once in an optimizer step
    (not once in an iteration) when gradients are accumulated; the log says which
    weights the numbers of an evaluation belong to; it can evaluate the weights
    without averaging as well; weights from ``load_from`` or ``init_cfg`` are
    where the average begins.

    A checkpoint holds the averaged weights as ``state_dict``, ready to use, and
    the others, with the number of updates, as ``ema_state_dict``.

    Args:
        decay: see :class:`RFDETREMA`.
        tau: see :class:`RFDETREMA`.
        interval: optimizer steps from one update to the next.
        evaluate_base: also evaluate the weights without averaging; their metrics
            get the prefix ``base/``. Validation takes twice as long.
    """

    # Metrics are added before RuntimeInfoHook, the first in line, reads them.
    priority = 'HIGHEST'

    def __init__(
        self,
        decay: float = 0.993,
        tau: float = 100,
        interval: int = 1,
        evaluate_base: bool = False,
    ) -> None:
        super().__init__('RFDETREMA', strict_load=True, decay=decay, tau=tau)
        if interval < 1:
            raise SettingError(f'interval={interval} must be 1 or more')
        self.interval = interval
        self.evaluate_base = evaluate_base
        self._loaded = 'the weights as built'

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return int(self.ema_model.steps)

    def before_run(self, runner) -> None:
        """Make the average.

        Raises:
            ExplainedError: another hook keeps one as well. Each would put its own in
                the model's place before the other, and training would go on with it.
        """
        if sum(isinstance(hook, EMAHook) for hook in runner.hooks) > 1:
            raise ExplainedError(
                'There are two moving averages: the configs of this package have one '
                'in default_hooks.ema; change that one, or remove it.'
            )
        super().before_run(runner)

    def before_train(self, runner) -> None:
        """Begin the average at the weights that training begins with."""
        if not self.updates:
            # The first update copies, and is not counted here.
            self.ema_model.update_parameters(self.src_model)
            self.ema_model.steps.zero_()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Update the average if the iteration ended in an optimizer step."""
        wrapper = runner.optim_wrapper
        step = math.ceil((runner.iter + 1) / wrapper._accumulative_counts)
        if wrapper.should_update() and step % self.interval == 0:
            self.ema_model.update_parameters(self.src_model)

    def before_val_epoch(self, runner) -> None:
        """Put the averaged weights in the model's place."""
        runner.logger.info(f'Validation of {self._evaluated_weights()}')
        super().before_val_epoch(runner)

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Put the model's own weights back, and evaluate them if asked to."""
        super().after_val_epoch(runner, metrics)
        if self.evaluate_base and self.updates:
            runner.logger.info('Validation of the weights without EMA (base/...)')
            base = evaluate(runner)
            metrics.update({f'base/{key}': value for key, value in base.items()})

    def before_test_epoch(self, runner) -> None:
        """Put the averaged weights in the model's place."""
        runner.logger.info(f'Test of {self._evaluated_weights()}')
        super().before_test_epoch(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Store both sets of weights, the averaged ones as ``state_dict``."""
        checkpoint['ema_state_dict'] = weights_to_cpu(self.ema_model.state_dict())
        self._swap_ema_state_dict(checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore both sets of weights when a run is resumed."""
        has_ema = 'ema_state_dict' in checkpoint
        self._loaded = f'the {"EMA " if has_ema else ""}weights of the checkpoint'
        if runner._resume:
            with entries_that_fit():
                super().after_load_checkpoint(runner, checkpoint)

    def _evaluated_weights(self) -> str:
        trained = f'the EMA weights after {self.updates} updates'
        return trained if self.updates else self._loaded

    def _swap_ema_parameters(self) -> None:
        if self.updates:  # without any there is no average
            super()._swap_ema_parameters()


@torch.no_grad()
def evaluate(runner) -> dict:
    """Metrics of the model as it is, on the validation set."""
    loop = runner.val_loop
    for data_batch in loop.dataloader:
        outputs = runner.model.val_step(data_batch)
        loop.evaluator.process(data_samples=outputs, data_batch=data_batch)
    return loop.evaluator.evaluate(len(loop.dataloader.dataset))
