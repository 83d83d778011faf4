"""The learning-rate schedule, counted in optimizer steps."""

import math

from mmdet.registry import HOOKS, PARAM_SCHEDULERS
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.optim import Optimizer

from ..errors import ExplainedError, SettingError

PRESETS = ('step', 'cosine')
STATE = ('base_values', 'last_step', '_global_step', '_iterations', '_last_value')


@PARAM_SCHEDULERS.register_module()
class RFDETRLR(_ParamScheduler):
    r"""Linear warm-up from 0, then a step or a cosine, as the official package.

    The factor on every group's learning rate at optimizer step :math:`s`, with W
    warm-up steps and T steps in all:

    - :math:`s < W`: :math:`s / W`;
    - ``'step'``: 1 until the drop, then 0.1;
    - ``'cosine'``: :math:`m + (1 - m) (1 + \cos(\pi (s - W) / (T - W))) / 2`.

    mmengine's schedulers cannot start at 0 and count iterations; this one counts
    optimizer steps, which are fewer when the optimizer wrapper accumulates
    gradients. Without warm-up and accumulation ``MultiStepLR`` and
    ``CosineAnnealingLR`` compute the same rates.

    In a config, lengths are in epochs and ``end`` is the run's length::

        param_scheduler = dict(
            type='RFDETRLR', preset='cosine', warmup=1, convert_to_iter_based=True)

    With ``IterBasedTrainLoop`` an epoch is one pass over the data, and the run ends
    at its ``max_iters``. ``by_epoch=False`` is for lengths in iterations.

    Args:
        optimizer: the optimizer, or the wrapper around it.
        preset: ``'step'`` or ``'cosine'``.
        warmup: length of the warm-up; fractions of an epoch are allowed.
        lr_drop: where the step preset drops.
        min_factor: where the cosine preset ends.
        end: length of the schedule; mmengine fills in the length of the run.
        by_epoch: must be False; ``convert_to_iter_based=True`` converts.
        **kwargs: ``last_step`` and ``verbose`` of mmengine's schedulers.

    Attributes:
        epochs: length in epochs, None if the lengths are in iterations.

    Raises:
        SettingError: if the preset is unknown or ``by_epoch`` is True.
    """

    def __init__(
        self,
        optimizer: OptimWrapper | Optimizer,
        *,
        end: int,
        preset: str = 'step',
        warmup: float = 0,
        lr_drop: int = 100,
        min_factor: float = 0.0,
        by_epoch: bool = True,
        **kwargs,
    ) -> None:
        if by_epoch:
            raise SettingError(
                'RFDETRLR changes the rate at every optimizer step: add '
                'convert_to_iter_based=True to param_scheduler (lengths in epochs), '
                'or by_epoch=False (lengths in iterations)'
            )
        if preset not in PRESETS:
            raise SettingError(f'preset={preset!r} must be one of {PRESETS}')
        self.epochs: int | None = None
        self.preset = preset
        self.min_factor = min_factor
        self.accumulation = accumulation(optimizer)
        self.warmup_steps = int(warmup / self.accumulation)
        self.drop_step = lr_drop / self.accumulation
        self.total_steps = math.ceil(end / self.accumulation)
        self._iterations = -1
        super().__init__(
            optimizer, 'lr', end=self.total_steps, by_epoch=False, **kwargs
        )

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: OptimWrapper | Optimizer,
        *,
        end: int,
        epoch_length: int,
        warmup: float = 0,
        lr_drop: int = 100,
        by_epoch: bool = True,
        **kwargs,
    ) -> 'RFDETRLR':
        """Build the schedule from lengths in epochs.

        An epoch is ``total // epochs`` optimizer steps, as in the official
        package, also where gradient accumulation does not divide an epoch.

        Args:
            optimizer: the optimizer, or the wrapper around it.
            end: epochs.
            epoch_length: iterations in an epoch.
            warmup: epochs.
            lr_drop: epochs.
            by_epoch: True.
            **kwargs: the other arguments of the class.
        """
        count = accumulation(optimizer)
        total = math.ceil(end * epoch_length / count)
        steps = max(1, total // end)
        schedule = cls(
            optimizer,
            end=end * epoch_length,
            warmup=int(steps * warmup) * count,
            lr_drop=lr_drop * steps * count,
            by_epoch=False,
            **kwargs,
        )
        schedule.epochs = end
        return schedule

    def factor(self, step: int) -> float:
        """The factor on the learning rates at optimizer step ``step``."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.preset == 'step':
            return 1.0 if step < self.drop_step else 0.1
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = (step - self.warmup_steps) / decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.min_factor + (1 - self.min_factor) * cosine

    def step(self) -> None:
        """Count an iteration; set the rates when it ended in an optimizer step."""
        self._iterations += 1
        if self._iterations % self.accumulation == 0:
            super().step()

    def _get_value(self) -> list[float]:
        factor = self.factor(self.last_step)
        return [value * factor for value in self.base_values]

    def state_dict(self) -> dict:
        """How far the schedule is; its shape belongs to the config."""
        return {key: self.__dict__[key] for key in STATE}


def accumulation(optimizer: OptimWrapper | Optimizer) -> int:
    """Iterations in one optimizer step."""
    return getattr(optimizer, '_accumulative_counts', 1)


@HOOKS.register_module()
class RFDETRParamSchedulerHook(ParamSchedulerHook):
    """mmengine's ``ParamSchedulerHook``, in any loop and with any optimizer wrapper.

    - It tells the batch augments, which draw one size for an optimizer step, how many
      iterations a step has.
    - mmengine says of ``IterBasedTrainLoop`` that it has one epoch, and that is how
      long a schedule of epochs would last. :class:`RFDETRLR` lasts as long as the run;
      schedulers that would never step are refused.
    """

    def before_train(self, runner: Runner) -> None:
        """Let everything that counts steps know what this run is.

        Raises:
            ExplainedError: a scheduler counts the epochs of a loop that has none.
        """
        runner.message_hub.update_info(
            'accumulative_counts', accumulation(runner.optim_wrapper), resumed=False
        )
        for scheduler in runner.param_schedulers or []:
            if isinstance(scheduler, RFDETRLR):
                if scheduler.epochs == runner.max_epochs:
                    steps = math.ceil(runner.max_iters / scheduler.accumulation)
                    scheduler.total_steps = scheduler.end = steps
            elif scheduler.by_epoch and isinstance(
                runner.train_loop, IterBasedTrainLoop
            ):
                raise ExplainedError(
                    f'{type(scheduler).__name__} counts epochs, and this loop has none:'
                    ' set param_scheduler.by_epoch=False, and lengths in iterations.'
                )
