"""Drop-path and dropout rates over the course of a training."""

import math

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from torch import nn

from ..errors import SettingError

# Modes, and the schedules that each can have.
SCHEDULES = dict(standard=['constant'], early=['constant', 'linear'], late=['constant'])


@HOOKS.register_module()
class RFDETRDropScheduleHook(Hook):
    """Set drop-path and dropout rates at every optimizer step.

    The highest rates are the model's own, ``backbone.drop_path_rate`` and
    ``decoder.dropout``. The drop-path rate r is spread over the ViT, block b gets
    ``r * b / (depth - 1)``. Without this hook all blocks keep r.

    Args:
        mode: ``'standard'`` keeps the rates, ``'early'`` has them before
            ``cutoff_epoch`` and 0 afterwards, ``'late'`` the other way round.
            (The official package only ever uses ``'standard'``.)
        cutoff_epoch: where ``'early'`` ends and ``'late'`` begins.
        schedule: ``'constant'``, or ``'linear'`` (``'early'`` only): falling to 0
            at ``cutoff_epoch``.
        depth: blocks that the drop-path rate is spread over; all by default. The
            official package counts the whole ViT, 12 blocks, of which Base builds
            11 here.

    Raises:
        SettingError: if an argument is unknown, or ``'linear'`` is combined with
            another mode than ``'early'``.
    """

    def __init__(
        self,
        mode: str = 'standard',
        cutoff_epoch: int = 0,
        schedule: str = 'constant',
        depth: int | None = None,
    ) -> None:
        if schedule not in SCHEDULES.get(mode, ()):
            raise SettingError(
                f'mode={mode!r} with schedule={schedule!r} must be one of {SCHEDULES}'
            )
        self.mode = mode
        self.cutoff_epoch = cutoff_epoch
        self.schedule = schedule
        self.depth = depth

    def before_train(self, runner) -> None:
        """Read the highest rates and find out how many steps the phases have."""
        # Two in a semi-supervised model: student and teacher.
        detectors = [
            module
            for module in runner.model.modules()
            if hasattr(module, 'backbone') and hasattr(module, 'decoder')
        ]
        # The ViT; a backbone of another kind keeps its own rates.
        vits = [getattr(detector.backbone, 'blocks', ()) for detector in detectors]
        self._drop_paths = [
            (number, block.drop_path)
            for blocks in vits
            for number, block in enumerate(blocks)
            if hasattr(getattr(block, 'drop_path', None), 'drop_prob')
        ]
        self._dropouts = [  # those of task heads too
            (module, module.p)
            for detector in detectors
            for module in {*detector.modules()} - {*detector.backbone.modules()}
            if isinstance(module, nn.Dropout)
        ]
        rates = [module.drop_prob for _, module in self._drop_paths]
        self._drop_path_rate = max(rates, default=0.0)
        self._depth = self.depth or max(map(len, vits), default=0)
        self._accumulation = runner.optim_wrapper._accumulative_counts
        total = math.ceil(runner.max_iters / self._accumulation)
        # Not runner.max_epochs: for IterBasedTrainLoop that is 1.
        epoch = total * len(runner.train_dataloader) // runner.max_iters
        self._cutoff_step = self.cutoff_epoch * max(1, epoch)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the rates of this iteration."""
        scale = self.scale(runner.iter // self._accumulation)
        spread = torch.linspace(0, self._drop_path_rate * scale, self._depth).tolist()
        for number, module in self._drop_paths:
            module.drop_prob = spread[number]
        for module, rate in self._dropouts:
            module.p = rate * scale

    def scale(self, step: int) -> float:
        """The factor on the highest rates at optimizer step ``step``."""
        if self.mode == 'standard':
            return 1.0
        early = step < self._cutoff_step
        if self.schedule == 'linear' and early:
            return 1 - step / max(1, self._cutoff_step - 1)
        return float(early == (self.mode == 'early'))
