"""What the entries are expected to be of a checkpoint that a run goes on from."""

from collections.abc import Mapping
from types import NoneType

from torch import Tensor

from ..errors import CheckpointError

_OWN = {
    'meta': Mapping,
    **{f'meta.{name}': int for name in ('epoch', 'iter')},
    'meta.seed': int | None,
    **{f'meta.{name}': Mapping for name in ('dataset_meta', 'rfdetr', 'trained_with')},
    'meta.dataset_meta.palette': list | tuple | str | None,
    'message_hub': Mapping,
    **{
        f'message_hub.{name}': Mapping
        for name in ('log_scalars', 'runtime_info', 'resumed_keys')
    },
    'message_hub.resumed_keys.*': bool,
    'optimizer': Mapping,
    'optimizer.state': Mapping,
    'optimizer.state.*': Mapping,
    'optimizer.state.*.step': Tensor | int | float,
    'optimizer.param_groups': list,
    'optimizer.param_groups.*': Mapping,
    'optimizer.param_groups.*.params': list,
    'optimizer.param_groups.*.params.*': int | str,
    'param_schedulers': list | Mapping,
    'param_schedulers.*': Mapping | list,
    'ema_state_dict': Mapping,
    'ema_state_dict.*': Tensor,
    'training_state': Mapping | None,
    'training_state.loop': Mapping,
}


def check_own(checkpoint: Mapping) -> None:
    """See that a checkpoint of mmengine holds what it is expected to.

    Raises:
        CheckpointError: an entry is of another type.
    """
    check_kinds(checkpoint, _OWN)
    meta = checkpoint.get('meta', {})
    for name in meta.get('dataset_meta', ()):
        if not isinstance(name, str):
            raise _damaged('a name in meta.dataset_meta', name, str)
    seed = meta.get('seed') or 0
    if not 0 <= seed < 2**32:
        raise CheckpointError(
            'The checkpoint is damaged: meta.seed is out of range; get the file again.'
        )


def check_kinds(checkpoint: Mapping, expected: Mapping) -> None:
    """See that what a file holds is of the expected types.

    Args:
        checkpoint: anything by name.
        expected: Types by the names on the way to them, with dots; ``*`` stands for
            each part of a list or a dict. What is not there is not looked at.

    Raises:
        CheckpointError: it is not.
    """
    for path, kinds in expected.items():
        for value in _find(checkpoint, path.split('.')):
            if not isinstance(value, kinds):
                raise _damaged(path.replace('.*', ''), value, kinds)


def _damaged(name: str, value, kinds) -> CheckpointError:
    """The error for an entry of another type than expected."""
    kinds = getattr(kinds, '__args__', (kinds,))
    wanted = ' or '.join(kind.__name__ for kind in kinds if kind is not NoneType)
    return CheckpointError(
        f'The checkpoint is damaged: {name} is a {type(value).__name__} and has to be '
        f'a {wanted}; get the file again.'
    )


def _find(value, path: list[str]):
    """Yield what lies at a path."""
    if not path:
        yield value
        return
    key, *rest = path
    inner = (
        value if isinstance(value, Mapping | list) else getattr(value, '__dict__', {})
    )
    if key == '*':
        parts = inner.values() if isinstance(inner, Mapping) else inner
    else:
        parts = [inner[key]] if isinstance(inner, Mapping) and key in inner else []
    for part in parts:
        yield from _find(part, rest)
