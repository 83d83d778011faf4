"""The optimizer wrapper that goes with a model's precision."""

from contextlib import AbstractContextManager

import torch
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from torch import Tensor, nn

from ..errors import ExplainedError, PrecisionError
from .policy import PrecisionPolicy, dtype_name, find_policy


@OPTIM_WRAPPERS.register_module()
class RFDETRAmpOptimWrapper(OptimWrapper):
    """Optimizer wrapper for a model that holds its own precision.

    It opens no autocast: the model does, in every mode. What is left is to scale the
    loss where float16 needs it (bfloat16 has float32's range and needs no scale).

    Args:
        optimizer: the optimizer to wrap.
        device_type: None follows ``model.precision``; another value must be the same,
            as configs stated it a second time before.
        dtype: likewise.
        loss_scale: ``'dynamic'``, a constant, or the arguments of
            ``torch.amp.GradScaler``. Only float16 uses it.
        accumulative_counts: micro-batches of an optimizer step.
        clip_grad: arguments of ``torch.nn.utils.clip_grad_norm_``, or of
            ``clip_grad_value_`` with ``type='value'``.

    Attributes:
        loss_scaler: the ``torch.amp.GradScaler``, None unless the model trains in
            float16. Where there is one, it skips steps whose gradient overflowed.
        guard: None, or an object whose ``see_loss(loss)`` takes note of the loss of
            every micro-batch before it is scaled, and whose ``may_step(gradients)``
            says before every step whether to make it.

    Raises:
        PrecisionError: if ``loss_scale`` is none of these.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        device_type: str | None = None,
        dtype: str | None = None,
        loss_scale: str | float | dict = 'dynamic',
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        max_norm = (clip_grad or {}).get('max_norm')
        if max_norm is not None and max_norm <= 0:
            raise ExplainedError(
                f'optim_wrapper.clip_grad.max_norm={max_norm} must be above 0: write '
                'clip_grad=None to clip nothing.'
            )
        super().__init__(optimizer, accumulative_counts, clip_grad)
        # Batch augments count optimizer steps and cannot see the wrapper.
        self.message_hub.update_info(
            'accumulative_counts', accumulative_counts, resumed=False
        )
        self.device_type = device_type
        self.dtype = dtype
        self.loss_scaler: torch.amp.GradScaler | None = None
        self.guard = None
        self._scaler_args, self._constant_scale = _read_loss_scale(loss_scale)
        self._saved_scale: dict = {}
        self._is_bound = False

    def disagreement(self, policy: PrecisionPolicy) -> str | None:
        """Say how this wrapper's keys contradict the model's policy, if they do.

        Returns:
            A sentence with both values and the overrides to go by the model's.
        """
        dtype = self.dtype or dtype_name(policy.dtype)
        device_type = self.device_type or policy.device_type or 'cuda'
        own = dtype if dtype == 'float32' else f'{device_type} {dtype}'
        if own == str(policy):
            return None
        return (
            f'optim_wrapper says {own}: leave its keys out, with --cfg-options '
            'optim_wrapper.device_type=None optim_wrapper.dtype=None, and set '
            'model.precision alone.'
        )

    def bind(self, model: nn.Module) -> None:
        """Check against ``model``, and prepare the loss scale if it trains in float16.

        mmengine's Runner calls it before the first step, through
        ``initialize_count_status``.

        Raises:
            PrecisionError: if the model holds no policy, or a different one.
        """
        found = find_policy(model)
        if found is None:
            raise PrecisionError(
                f'RFDETRAmpOptimWrapper trains models of type RFDETR, and '
                f'{type(model).__name__} holds none: '
                'add --cfg-options optim_wrapper.type=OptimWrapper.'
            )
        policy, device = found
        if text := self.disagreement(policy):
            raise PrecisionError(f'model.precision is {policy}, and {text}')
        if policy.resolve(device) == torch.float16:
            self.loss_scaler = torch.amp.GradScaler(device.type, **self._scaler_args)
            if self._saved_scale:
                self.loss_scaler.load_state_dict(self._saved_scale)
        self._saved_scale = {}
        self._is_bound = True

    def initialize_count_status(
        self, model: nn.Module, init_counts: int, max_counts: int
    ) -> None:
        """Bind to the model, and set the counters of gradient accumulation."""
        self.bind(model)
        # mmengine warns of lost gradients in the midst of a step. They may not be lost.
        has_gradients = any(p.grad is not None for p in model.parameters())
        super().initialize_count_status(
            model, 0 if has_gradients else init_counts, max_counts
        )
        self._inner_count = init_counts

    def optim_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Skip gradient synchronisation in micro-batches that do not step."""
        if not self._is_bound:
            self.bind(model)
        return super().optim_context(model)

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Back-propagate the loss, scaled under float16.

        Raises:
            RuntimeError: if the wrapper has not seen the model yet.
        """
        if not self._is_bound:
            raise RuntimeError(
                'RFDETRAmpOptimWrapper does not know its model yet: compute the loss '
                'inside `with optim_wrapper.optim_context(model):`.'
            )
        if self.guard is not None:
            self.guard.see_loss(loss)
        if self.loss_scaler is not None:
            loss = self.loss_scaler.scale(loss)
        super().backward(loss, **kwargs)

    def step(self, **kwargs) -> None:
        """Clip the gradients and step; under float16, unless they overflowed."""
        if self.guard is not None and not self.guard.may_step(self._gradients()):
            return
        if self.loss_scaler is None:
            super().step(**kwargs)
            return
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._constant_scale)

    def _gradients(self) -> list[Tensor]:
        """What the guard looks at: under float16 an overflow is expected."""
        if self.loss_scaler is not None:
            return []
        return [
            parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.grad is not None
        ]

    def state_dict(self) -> dict:
        """State of the optimizer, and under float16 of the loss scale."""
        state = super().state_dict()
        if self.loss_scaler is not None:
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore the optimizer, and the loss scale if this run has one.

        A checkpoint of another precision is fine: a loss scale that is not needed
        is left, one that is missing starts anew.
        """
        state = dict(state_dict)
        # Before bind() it is not known whether this run scales the loss.
        self._saved_scale = state.pop('loss_scaler', {})
        if self.loss_scaler is not None and self._saved_scale:
            self.loss_scaler.load_state_dict(self._saved_scale)
        super().load_state_dict(state)


def resolve_optim_wrapper(optim_wrapper_cfg: dict, model: nn.Module) -> dict:
    """Undo what ``--amp`` did to the optimizer wrapper's config.

    mmdet's ``--amp`` sets ``type='AmpOptimWrapper'``, which would open an autocast
    of its own. An optimizer-wrapper constructor passes its config through here.

    Args:
        optim_wrapper_cfg: config of the wrapper; not modified.
        model: the model to be trained.

    Returns:
        A copy, with ``type='RFDETRAmpOptimWrapper'`` where it was
        ``AmpOptimWrapper`` and the model holds a policy.

    Raises:
        PrecisionError: if ``--amp`` asks for mixed precision and the model's
            policy is float32, or weights were cast to another dtype than float32.
    """
    cfg = dict(optim_wrapper_cfg)
    found = find_policy(model)
    if found is not None:
        found[0].check_weights(model)
    if cfg.get('type') not in ('AmpOptimWrapper', AmpOptimWrapper) or found is None:
        return cfg
    policy, _ = found
    if policy.dtype == torch.float32:
        raise PrecisionError(
            'optim_wrapper.type=AmpOptimWrapper (--amp sets it) asks for mixed '
            'precision, and model.precision is float32. Leave --amp out and set '
            'optim_wrapper.type=RFDETRAmpOptimWrapper, or add --cfg-options '
            f'{policy.overrides(PrecisionPolicy("cuda", "bfloat16"))}.'
        )
    print_log(
        'optim_wrapper.type=AmpOptimWrapper (--amp sets it) is replaced by '
        f'RFDETRAmpOptimWrapper, which follows model.precision: {policy}.',
        logger='current',
    )
    cfg['type'] = 'RFDETRAmpOptimWrapper'
    return cfg


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RFDETRUniformOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, which ``--amp`` does not lead astray.

    For configs that want one learning rate for all parameters, or mmengine's own
    ``paramwise_cfg``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper of ``model``."""
        self.optim_wrapper_cfg = resolve_optim_wrapper(self.optim_wrapper_cfg, model)
        return super().__call__(model)


def _read_loss_scale(loss_scale: str | float | dict) -> tuple[dict, float | None]:
    """Return GradScaler's arguments, and the scale to keep if it is a constant."""
    if loss_scale == 'dynamic':
        return {}, None
    if isinstance(loss_scale, dict):
        return dict(loss_scale), None
    if isinstance(loss_scale, int | float) and loss_scale > 0:
        return {'init_scale': float(loss_scale)}, float(loss_scale)
    raise PrecisionError(
        f"optim_wrapper.loss_scale={loss_scale!r}: write 'dynamic', a positive "
        "number, or GradScaler's arguments as a dict."
    )
