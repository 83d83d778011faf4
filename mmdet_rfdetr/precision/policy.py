"""The precision of a model: stated once, entered in its forward."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import PrecisionError
from .weights import WeightDtypes, first_of

AUTOCAST_DEVICES = ('cuda', 'cpu')
DTYPES = {
    'float32': torch.float32,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
}


def autocast_on(device_type: str) -> str:
    """What autocast makes of operations on a kind of device, here and now.

    Returns:
        ``'cuda bfloat16'`` or so; ``'float32'`` where it is off.
    """
    on = torch.amp.is_autocast_available(device_type)  # not so for 'meta'
    if not on or not torch.is_autocast_enabled(device_type):
        return 'float32'
    return describe(device_type, torch.get_autocast_dtype(device_type))


class PrecisionPolicy:
    """The one authority on the precision a model runs in.

    It holds for one kind of device. On any other kind, such as a CPU where the
    policy names CUDA, the model runs in float32 and says so once.

    Args:
        device_type: ``'cuda'`` or ``'cpu'``; None with float32 alone.
        dtype: ``'bfloat16'``, ``'float16'`` or ``'float32'``. float32 is the
            same policy on every device.

    Attributes:
        seen: what autocast was inside the last forward, None before the first.

    Raises:
        PrecisionError: if a value is not one of these.
    """

    def __init__(self, device_type: str | None = None, dtype: str = 'float32') -> None:
        if dtype not in DTYPES:
            raise PrecisionError(
                f'model.precision.dtype={dtype!r}: choose one of {list(DTYPES)}.'
            )
        if device_type not in AUTOCAST_DEVICES and (
            device_type is not None or dtype != 'float32'
        ):
            raise PrecisionError(
                f'model.precision.device_type={device_type!r}: '
                f'choose one of {list(AUTOCAST_DEVICES)}.'
            )
        self.device_type = device_type
        self.dtype = DTYPES[dtype]
        self.seen: str | None = None
        self._resolved: dict[torch.device, torch.dtype] = {}

    @classmethod
    def from_config(cls, config: dict | None) -> 'PrecisionPolicy':
        """Read ``model.precision``.

        Args:
            config: ``dict(device_type=..., dtype=...)``, or None for float32.

        Raises:
            PrecisionError: if a key is unknown or missing, or a value is not legal.
        """
        if config is None:
            return cls()
        if not isinstance(config, dict) or set(config) != {'device_type', 'dtype'}:
            raise PrecisionError(
                f'model.precision={config!r}: write None, or '
                "dict(device_type='cuda', dtype='bfloat16')."
            )
        return cls(**config)

    def resolve(self, device: torch.device) -> torch.dtype:
        """Return the dtype that autocast takes on ``device``; float32: none.

        The first time it gives float32 for a policy that names another kind of
        device, one message says so; it is a warning if that is an accelerator.

        Raises:
            PrecisionError: if the policy says bfloat16 and the GPU lacks it.
        """
        if device not in self._resolved:
            self._resolved[device] = self._resolve(device)
        return self._resolved[device]

    def _resolve(self, device: torch.device) -> torch.dtype:
        if self.dtype == torch.float32:
            return torch.float32
        if device.type != self.device_type:
            hint = ''
            if device.type in AUTOCAST_DEVICES:
                name = 'bfloat16' if device.type == 'cpu' else dtype_name(self.dtype)
                fix = self.overrides(PrecisionPolicy(device.type, name))
                hint = f' For {name} on this device add --cfg-options {fix}'
            # It is what the policy says. On a CPU it costs nothing that one would not
            # expect; on an accelerator it costs most of the speed.
            level = logging.INFO if device.type == 'cpu' else logging.WARNING
            print_log(
                f'model.precision is {self}, and the model runs on {device.type}: '
                f'everything runs in float32.{hint}',
                logger='current',
                level=level,
            )
            return torch.float32
        if self.dtype == torch.bfloat16 and not has_native_bfloat16(device):
            float16, float32 = PrecisionPolicy('cuda', 'float16'), PrecisionPolicy()
            raise PrecisionError(
                f'model.precision is {self}, and {torch.cuda.get_device_name(device)} '
                'has no native bfloat16. Choose float16 with --cfg-options '
                f'{self.overrides(float16)}, or float32 with --cfg-options '
                f'{self.overrides(float32)}.'
            )
        return self.dtype

    def check_weights(
        self,
        model: nn.Module,
        *,
        dtypes: set[torch.dtype] | None = None,
        alternative: torch.dtype | None = None,
        mixed: bool = False,
        name: str = 'model',
    ) -> None:
        """Stop if weights or buffers were cast, by ``half()`` for example.

        Args:
            model: what holds them.
            dtypes: the floating dtypes that they have, None to look.
            alternative: a dtype that all may have in place of float32.
            mixed: whether only some of them may have it.
            name: what an error calls the model.

        Raises:
            PrecisionError: naming what was cast.
        """
        dtypes = WeightDtypes(model).now() if dtypes is None else dtypes
        cast = dtypes - {torch.float32}
        if not cast or (cast == {alternative} and (mixed or cast == dtypes)):
            return
        names = ' and '.join(sorted(map(dtype_name, cast)))
        raise PrecisionError(
            f'model.precision is {self}, and weights of {name} were cast to {names}, '
            f'first of all {first_of(model, cast)}: call {name}.float(), and let '
            'model.precision say what to compute in.'
        )

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Enter the policy; the detector's forward does so in every mode.

        Args:
            device: where the inputs are.

        Raises:
            PrecisionError: if an autocast around the model differs from the
                policy, or the GPU lacks the policy's dtype.
        """
        dtype = self.resolve(device)
        if other := self.other_autocast(device):
            raise PrecisionError(
                f'model.precision is {self}, and the autocast around the model says '
                f'{other}. Call the model outside of it; where a validation or test '
                'loop opens it, add --cfg-options val_cfg.fp16=False '
                'test_cfg.fp16=False.'
            )
        low = dtype != torch.float32
        with torch.autocast(device.type, dtype=dtype) if low else nullcontext():
            self.seen = autocast_on(device.type)
            yield

    def other_autocast(self, device: torch.device) -> str | None:
        """Name an autocast that is on here and differs from the policy, if any."""
        fine = ('float32', self.effective(device))
        outer = map(autocast_on, AUTOCAST_DEVICES)
        return next((name for name in outer if name not in fine), None)

    def effective(self, device: torch.device) -> str:
        """What the policy comes to on ``device``: ``'cuda bfloat16'`` or so."""
        return describe(device.type, self.resolve(device))

    def overrides(self, other: 'PrecisionPolicy') -> str:
        """Command-line overrides that give a model of this policy another one."""
        if other.dtype == torch.float32:
            return 'model.precision=None'
        # mmengine does not merge keys into None: such a value has to be replaced.
        replace = 'model.precision._delete_=True ' if self.device_type is None else ''
        return (
            f'{replace}model.precision.device_type={other.device_type} '
            f'model.precision.dtype={dtype_name(other.dtype)}'
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrecisionPolicy) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return describe(self.device_type, self.dtype)


def describe(device_type: str | None, dtype: torch.dtype) -> str:
    """``'cuda bfloat16'`` or so; float32 is the same on every device."""
    name = dtype_name(dtype)
    return name if dtype == torch.float32 else f'{device_type} {name}'


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` -> ``'bfloat16'``, as configs spell it."""
    return str(dtype).removeprefix('torch.')


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA or ROCm GPU computes in bfloat16 rather than emulating it."""
    if device.type != 'cuda' or torch.version.hip:
        return True
    return torch.cuda.get_device_capability(device) >= (8, 0)


def find_policy(model: nn.Module) -> tuple[PrecisionPolicy, torch.device] | None:
    """Return the policy that ``model`` or a module in it holds, and its device.

    Looks inside wrappers such as data-parallel, EMA or test-time augmentation.
    """
    return next(find_policies(model), None)


def find_policies(model: nn.Module) -> Iterator[tuple[PrecisionPolicy, torch.device]]:
    """Like :func:`find_policy` for all: a student and its teacher have one each."""
    for module in model.modules():
        policy = getattr(module, 'precision', None)
        if isinstance(policy, PrecisionPolicy):
            yield policy, next(module.parameters()).device
