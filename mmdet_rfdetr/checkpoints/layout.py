"""What lies around the weights in a checkpoint file: official layout and mmengine's.

An official file holds ``model`` and ``args`` (a namespace or a dict), a Lightning file
``state_dict`` with prefixed names. mmengine reads ``state_dict`` and ``meta``. What an
official file says about itself travels with the weights, in the metadata that torch
attaches to a state dict, since that is all that reaches a model; what only the
official package reads waits in ``meta`` for the way back.
"""

import reprlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor

from ..errors import CheckpointError, ExplainedError
from .class_rows import are_rows_of_ids, label_names, row_names
from .names import is_official, is_own

INFO_KEY = 'rfdetr'
"""Where metadata of a state dict, and ``meta``, hold what is RF-DETR's."""

ROW_NAMES = 'row_names'
"""Where ``meta['dataset_meta']`` names each row of a file's class layers.

Only where these are not the classes, that is for models whose labels are COCO's
category ids.
"""

EXTRAS = ('model_name', 'model_config', 'rfdetr_version')
"""What else an official file says, which nothing here reads."""

# Of Lightning, of a compiled model, and of both.
_PREFIXES = ('', 'model.', '_orig_mod.', 'model._orig_mod.')


@contextmanager
def entries_that_fit(file: str = 'The checkpoint', remedy: str = '') -> Iterator[None]:
    """Say of entries that contradict each other that the file is damaged.

    Any of them can be anything, and fails where it is first used.

    Args:
        file: its path, for the message.
        remedy: what else can be done, after a comma.

    Raises:
        CheckpointError: for an error of torch or Python.
    """
    try:
        yield
    except (ExplainedError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f'{file} is damaged, its entries do not fit together ({reason}): get the '
            f'file again, or take an older one{remedy}.'
        ) from error


@entries_that_fit()
def to_mmengine_layout(checkpoint: dict) -> dict:
    """Bring an RF-DETR checkpoint into mmengine's layout; names stay as they are.

    Args:
        checkpoint: Content of a file.

    Returns:
        ``state_dict``, an OrderedDict with the file's information in its metadata,
        and ``meta``, besides what an own checkpoint holds more. A checkpoint of
        another model comes back unchanged.

    Raises:
        CheckpointError: the weights are not all tensors, or another entry is not what
            it is expected to be.
    """
    weights = _official_weights(checkpoint)
    if weights is not None:
        return _from_official_layout(checkpoint, weights)
    state_dict = checkpoint.get('state_dict', checkpoint)
    if not (isinstance(state_dict, dict) and is_own(state_dict)):
        return checkpoint
    if state_dict is checkpoint:
        checkpoint = {'meta': {}}
    meta = checkpoint.get('meta', {})
    info = {**meta.get(INFO_KEY, {}), 'class_names': class_names(meta)}
    return {**checkpoint, 'state_dict': _with_info(state_dict, info)}


def class_names(meta: Mapping) -> list[str] | None:
    """Return the class names that mmengine's ``meta`` holds, None without any.

    Args:
        meta: As in mmengine's layout.
    """
    return _as_names(meta.get('dataset_meta', {}).get('classes'))


def _with_info(
    state_dict: Mapping[str, Tensor], info: Mapping
) -> OrderedDict[str, Tensor]:
    """A copy that says of itself what its file says; the tensors are the same."""
    for name, value in state_dict.items():
        if (
            not isinstance(value, Tensor)
            # One number can be said to be thousands, until an operation writes them.
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise CheckpointError(
                f'The checkpoint is damaged: {name!r} is no tensor of as many numbers '
                'as its shape has; get the file again.'
            )
    copied = OrderedDict(state_dict)
    copied._metadata = deepcopy(getattr(state_dict, '_metadata', {}))
    copied._metadata.setdefault('', {})[INFO_KEY] = info
    return copied


def _official_weights(checkpoint: dict) -> Mapping[str, Tensor] | None:
    """The state dict with official names, wherever the file keeps it."""
    for place in (checkpoint.get('model'), checkpoint.get('state_dict'), checkpoint):
        for prefix in _PREFIXES if isinstance(place, dict) else ():
            inner = {
                name.removeprefix(prefix): value
                for name, value in place.items()
                if isinstance(name, str) and name.startswith(prefix)
            }
            if is_official(inner):
                return inner
    return None


def _from_official_layout(checkpoint: dict, weights: Mapping[str, Tensor]) -> dict:
    args = _as_dict(checkpoint.get('args', checkpoint.get('hyper_parameters')))
    config = _as_dict(checkpoint.get('model_config'))
    names = _as_names(args.get('class_names'))
    info = {'class_names': names}
    for key in ('num_queries', 'group_detr'):
        # Files of the newest writer keep these two in the model's configuration.
        info[key] = args.get(key, config.get(key))
    extras = {key: checkpoint[key] for key in EXTRAS if key in checkpoint}
    meta = {INFO_KEY: {'args': args, **extras}}
    of_coco = are_rows_of_ids(len(weights['class_embed.weight']), names)
    if of_coco and not names:
        names = label_names()
    if names:
        meta['dataset_meta'] = {'classes': tuple(names)}
    if of_coco:
        meta['dataset_meta'][ROW_NAMES] = row_names()
    return {'state_dict': _with_info(weights, info), 'meta': meta}


def _as_dict(args) -> dict:
    """Arguments in a dict or a namespace; an empty one for anything else."""
    return dict(args if isinstance(args, Mapping) else getattr(args, '__dict__', {}))


def _as_names(names: Sequence[str] | str | None) -> list[str] | None:
    """Names as a list, None without any."""
    names = [names] if isinstance(names, str) and names else names or ()
    # A set or a dict could say any order of the rows.
    is_list = isinstance(names, list | tuple)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f'The checkpoint is damaged: its class names are {reprlib.repr(names)}; '
            'get the file again.'
        )
    return list(names) or None
