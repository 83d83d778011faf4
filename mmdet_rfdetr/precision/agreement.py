"""Stop a run whose settings contradict the model's precision."""

from collections.abc import Iterator

import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, ApexOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from ..errors import PrecisionError
from .optim_wrapper import RFDETRAmpOptimWrapper
from .policy import (
    AutocastState,
    PrecisionPolicy,
    dtype_name,
    find_policies,
    find_policy,
)

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
    problems = [
        *_in_optim_wrapper(runner.optim_wrapper, policy, device),
        *_in_loop('val_cfg', runner._val_loop, policy),
        *_in_loop('test_cfg', runner._test_loop, policy),
        *_in_config(runner.cfg, policy),
    ]
    if other := policy.other_autocast(device):
        problems.append(
            f'model.precision is {policy}, and the run was started inside an autocast '
            f'of {other}. Start it outside.'
        )
    if problems:
        raise PrecisionError('\n'.join(problems))


def _policy_of(runner: Runner) -> tuple[PrecisionPolicy, torch.device]:
    found = find_policy(runner.model)
    if found is None:
        raise PrecisionError(
            'RFDETRPrecisionHook watches models of type RFDETR, and '
            f'{type(runner.model).__name__} holds none: remove the hook.'
        )
    return found


def _in_optim_wrapper(
    optim_wrapper: OptimWrapper | dict | None,
    policy: PrecisionPolicy,
    device: torch.device,
) -> Iterator[str]:
    # A run that only validates or tests leaves the wrapper's config unbuilt.
    if not isinstance(optim_wrapper, OptimWrapper):
        return
    name = type(optim_wrapper).__name__
    if isinstance(optim_wrapper, RFDETRAmpOptimWrapper):
        if text := optim_wrapper.disagreement(policy):
            yield text
    elif isinstance(optim_wrapper, AmpOptimWrapper | ApexOptimWrapper):
        yield (
            f'model.precision is {policy}, and optim_wrapper.type={name} brings a '
            'precision of its own. Leave out --amp and add --cfg-options '
            'optim_wrapper.type=RFDETRAmpOptimWrapper.'
        )
    elif policy.resolve(device) == torch.float16:
        yield (
            f'model.precision is {policy}, and optim_wrapper.type={name} does not '
            'scale the loss, as float16 needs. Add --cfg-options '
            'optim_wrapper.type=RFDETRAmpOptimWrapper.'
        )


def _in_loop(name: str, loop: object, policy: PrecisionPolicy) -> Iterator[str]:
    # A loop that has not run yet is still its config.
    fp16 = loop.get('fp16') if isinstance(loop, dict) else getattr(loop, 'fp16', None)
    if fp16:
        yield (
            f'model.precision is {policy}, and {name}.fp16={fp16} opens an autocast of '
            f'its own. Add --cfg-options {name}.fp16=False.'
        )


def _in_config(config: Config, policy: PrecisionPolicy) -> Iterator[str]:
    compiled = config.get('compile')
    if compiled is not None and compiled is not False:
        yield (
            f'model.precision is {policy}, and compile={compiled} has mmengine compile '
            'the optimizer step, precision and loss scale included, which fails. '
            'Add --cfg-options compile=False; model.compile compiles the network.'
        )
    # Variables that look as if they set the precision. Assigning one in a config
    # that inherits changes nothing: the values below it were filled in before.
    device_type = policy.device_type or 'cuda'
    wanted = {}
    if 'precision' in config:
        wanted['precision'] = PrecisionPolicy.from_config(config['precision'])
    if config.get('device_type'):
        wanted['device_type'] = PrecisionPolicy(
            config['device_type'], dtype_name(policy.dtype)
        )
    if config.get('dtype'):
        wanted['dtype'] = PrecisionPolicy(device_type, config['dtype'])
    if config.get('fp16'):
        wanted['fp16'] = PrecisionPolicy(device_type, 'float16')
    for name, other in wanted.items():
        if other != policy:
            yield (
                f'model.precision is {policy}, and the variable {name}='
                f'{config[name]} at the top of the config does not change it. Remove '
                f'the variable and, if you mean {other}, add --cfg-options '
                f'{policy.overrides(other)}.'
            )


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
        self._reference: AutocastState | None = None
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
        if self._reference is None:
            dtype = policy.resolve(device)
            self._reference = AutocastState(device.type, dtype != torch.float32, dtype)
        loop = _LOOPS[mode]
        # Of a student and its teacher, one may have had nothing to do.
        all_seen = {policy.seen for policy, _ in find_policies(runner.model)} - {None}
        if all_seen != {self._reference}:
            seen = next(
                iter(all_seen - {self._reference}),
                'outside of the policy, which forward did not enter',
            )
            raise PrecisionError(
                f'This run is one of {self._reference}, and {loop} ran {seen}. '
                'RFDETR.forward enters model.precision: do not bypass it, and do not '
                'change it or move the model during a run.'
            )
        if loop not in self._logged:
            self._logged.add(loop)
            print_log(f'Precision in {loop}: {self._reference}.', logger='current')

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
        had_scale = bool(checkpoint.get('optimizer', {}).get('loss_scaler'))
        has_scale = policy.resolve(device) == torch.float16
        scale = {
            (True, False): '; its loss scale is not needed any more',
            (False, True): '; the loss scale starts anew',
        }.get((had_scale, has_scale), '')
        print_log(
            f'This run resumes a checkpoint trained in {before}, and goes on in '
            f'{now}{scale}.',
            logger='current',
        )
