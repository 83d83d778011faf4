"""Stop a run whose settings contradict the model's precision."""

from collections.abc import Iterator

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, ApexOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from ..errors import PrecisionError
from ..precision.optim_wrapper import RFDETRAmpOptimWrapper
from ..precision.policy import PrecisionPolicy, dtype_name, find_policies, find_policy

_LOOPS = dict(train='training', val='validation', test='testing')


def check_agreement(runner: Runner) -> None:
    """Compare everything that could set a precision with ``model.precision``.

    Args:
        runner: an mmengine runner that is about to train, validate or test.

    Raises:
        PrecisionError: listing every disagreement, with both values and what to add
            to the command line.
    """
    policy, device = _policy_of(runner)
    problems = list(_problems(runner, policy, device))
    if problems:
        raise PrecisionError(
            '\n'.join(f'model.precision is {policy}, and {each}' for each in problems)
        )


def _policy_of(runner: Runner) -> tuple[PrecisionPolicy, torch.device]:
    found = find_policy(runner.model)
    if found is None:
        raise PrecisionError(
            'RFDETRPrecisionHook watches models of type RFDETR, and '
            f'{type(runner.model).__name__} holds none: remove the hook.'
        )
    return found


def _problems(
    runner: Runner, policy: PrecisionPolicy, device: torch.device
) -> Iterator[str]:
    # A run that only validates or tests leaves the wrapper's config unbuilt.
    wrapper = runner.optim_wrapper
    todo = 'add --cfg-options optim_wrapper.type=RFDETRAmpOptimWrapper.'
    name = f'optim_wrapper.type={type(wrapper).__name__}'
    if isinstance(wrapper, RFDETRAmpOptimWrapper):
        if own := wrapper.disagreement(policy):
            yield own
    elif isinstance(wrapper, AmpOptimWrapper | ApexOptimWrapper):
        yield f'{name} brings a precision of its own: leave out --amp and {todo}'
    elif isinstance(wrapper, OptimWrapper) and policy.resolve(device) == torch.float16:
        yield f'{name} does not scale the loss, as float16 needs: {todo}'
    for name, loop in (('val_cfg', runner._val_loop), ('test_cfg', runner._test_loop)):
        # A loop that has not run yet is still its config.
        own = loop if isinstance(loop, dict) else getattr(loop, '__dict__', {})
        if own.get('fp16'):
            yield (
                f'{name}.fp16=True opens an autocast of its own: add --cfg-options '
                f'{name}.fp16=False.'
            )
    if compiled := runner.cfg.get('compile'):
        yield (
            f'compile={compiled} has mmengine compile the optimizer step, which fails: '
            'add --cfg-options compile=False.'
        )
    if other := policy.other_autocast(device):
        yield f'the run was started inside an autocast of {other}: start it outside.'


@HOOKS.register_module()
class RFDETRPrecisionHook(Hook):
    """Check before the first step, and in every loop, that there is one precision.

    Before a run it calls ``check_agreement``. On the first iteration of every
    epoch of training, validation and testing it reads what the model's forward
    recorded, and stops the run if it is not what the run started with; and it sees that
    the averaged weights, which it will validate, are float32. The policy
    goes into the checkpoint's ``meta``, and resuming under another one says so.

    Configs list it in ``default_hooks``, which a config that inherits adds to,
    rather than in ``custom_hooks``, which it would replace.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._reference: str | None = None
        self._logged: set[str] = set()
        self._is_first_iter = False

    def before_run(self, runner: Runner) -> None:
        """Check the settings against each other."""
        check_agreement(runner)

    # mmengine calls these two for training, validation and testing.
    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Look at the averaged weights, and watch the first step."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                for policy, _ in find_policies(hook.ema_model):
                    policy.check_weights(hook.ema_model, name='ema_model')
        for policy, _ in find_policies(runner.model):
            policy.seen = None
        self._is_first_iter = True

    def _after_iter(self, runner: Runner, *args, mode: str, **kwargs) -> None:
        """Compare what forward recorded in the first step."""
        if not self._is_first_iter:
            return
        self._is_first_iter = False
        policy, device = _policy_of(runner)
        loop = _LOOPS[mode]
        self._reference = self._reference or policy.effective(device)
        # Of a student and its teacher, one may have had nothing to do.
        seen = {policy.seen for policy, _ in find_policies(runner.model)} - {None}
        if seen != {self._reference}:
            other = ' and '.join(seen - {self._reference}) or 'outside of the policy'
            raise PrecisionError(
                f'This run is one of {self._reference}, and {loop} ran {other}. '
                'RFDETR.forward enters model.precision: do not bypass it, and do not '
                'change it or move the model during a run.'
            )
        if loop not in self._logged:
            self._logged.add(loop)
            text = f'Precision in {loop}: {self._reference} on {device.type}.'
            print_log(text, logger='current')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write the policy, and what it came to on this machine, into the meta."""
        policy, device = _policy_of(runner)
        checkpoint['meta']['precision'] = {
            'device_type': policy.device_type,
            'dtype': dtype_name(policy.dtype),
            'effective': policy.effective(device),
        }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say so if training resumes under another precision."""
        saved = checkpoint.get('meta', {}).get('precision')
        if saved is None or not runner._resume:
            return
        policy, device = _policy_of(runner)
        before, now = saved['effective'], policy.effective(device)
        if before == now:
            return
        print_log(
            f'This run resumes a checkpoint trained in {before}, and goes on in {now}.',
            logger='current',
        )
