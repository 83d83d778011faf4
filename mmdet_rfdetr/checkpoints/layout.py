"""What lies around the weights in a checkpoint file: official layout and mmengine's.

An official file holds ``model`` and ``args`` (a namespace or a dict), a Lightning file
``state_dict`` with prefixed names. mmengine reads ``state_dict`` and ``meta``. What an
official file says about itself travels with the weights, in the metadata that torch
attaches to a state dict, since that is all that reaches a model; what only the
official package reads waits in ``meta`` for the way back.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import CheckpointError
from . import coco_rows, expected
from .names import VIT, count_members, is_official, is_own

INFO_KEY = 'rfdetr'
"""Where metadata of a state dict, and ``meta``, hold what is RF-DETR's."""

ROW_NAMES = 'row_names'
"""Where ``meta['dataset_meta']`` names each row of a file's class layers.

Only where these are not the classes, that is for models whose labels are COCO's
category ids.
"""

_EXTRAS = ('model_name', 'model_config', 'rfdetr_version')
# Of Lightning, of a compiled model, and of both.
_PREFIXES = ('', 'model.', '_orig_mod.', 'model._orig_mod.')


@expected.entries_that_fit()
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
    expected.check_own(checkpoint)
    _check_tensors(state_dict)
    info = {'class_names': class_names(checkpoint.get('meta', {}))}
    return {**checkpoint, 'state_dict': _with_info(state_dict, info)}


def to_official_layout(state_dict: Mapping[str, Tensor], meta: Mapping) -> dict:
    """Bring weights with official names into the layout of an official file.

    Args:
        state_dict: Official names to tensors.
        meta: As in mmengine's layout. Arguments that came from an official file are
            given back; otherwise those that its loader reads are made.

    Returns:
        ``model`` and ``args``, and what else an official file brought.
    """
    kept = meta.get(INFO_KEY, {})
    args = kept.get('args')
    if not args:
        groups = count_members(state_dict, 'transformer.enc_output.')
        kernel = state_dict[VIT + 'embeddings.patch_embeddings.projection.weight']
        args = {
            'num_queries': len(state_dict['refpoint_embed.weight']) // groups,
            'group_detr': groups,
            'patch_size': kernel.shape[-1],
            'segmentation_head': 'segmentation_head.bias' in state_dict,
        }
        if names := class_names(meta):
            args['class_names'] = names
    extras = {key: kept[key] for key in _EXTRAS if key in kept}
    return {'model': dict(state_dict), 'args': args, **extras}


def class_names(meta: Mapping) -> list[str] | None:
    """Return the class names that mmengine's ``meta`` holds, None without any.

    Args:
        meta: As in mmengine's layout.
    """
    return _as_names(meta.get('dataset_meta', {}).get('classes'))


def _check_tensors(state_dict: Mapping) -> None:
    """Refuse entries that are no ordinary tensors."""
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            what = f'a {type(value).__name__}'
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            # One number can be said to be thousands, until an operation writes them.
            what = f'fewer numbers than its shape {tuple(value.shape)} has'
        else:
            continue
        raise CheckpointError(
            f'The checkpoint is damaged: it holds {what} as {name!r}; get the file '
            'again.'
        )


def _with_info(
    state_dict: Mapping[str, Tensor], info: Mapping
) -> OrderedDict[str, Tensor]:
    """A copy that says of itself what its file says; the tensors are the same."""
    copied = OrderedDict(state_dict)
    metadata = getattr(state_dict, '_metadata', {})
    for part in (
        metadata,
        *(metadata.values() if isinstance(metadata, Mapping) else ()),
    ):
        if not isinstance(part, Mapping):
            raise expected.damaged('the metadata of the weights', part, Mapping)
    metadata = OrderedDict(metadata)
    metadata[''] = {**metadata.get('', {}), INFO_KEY: info}
    copied._metadata = metadata
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
    expected.check_official(checkpoint)
    _check_tensors(weights)
    args = _as_dict(checkpoint.get('args', checkpoint.get('hyper_parameters')))
    config = _as_dict(checkpoint.get('model_config'))
    names = _as_names(args.get('class_names'))
    info = {'class_names': names}
    for key in ('num_queries', 'group_detr'):
        # Files of the newest writer keep these two in the model's configuration.
        info[key] = args.get(key, config.get(key))
    extras = {key: checkpoint[key] for key in _EXTRAS if key in checkpoint}
    meta = {INFO_KEY: {'args': args, **extras}}
    of_coco = coco_rows.are_rows_of_ids(len(weights['class_embed.weight']), names)
    if of_coco and not names:
        names = coco_rows.label_names()
    if names:
        meta['dataset_meta'] = {'classes': tuple(names)}
    if of_coco:
        meta['dataset_meta'][ROW_NAMES] = coco_rows.row_names()
    return {'state_dict': _with_info(weights, info), 'meta': meta}


def _as_dict(args) -> dict:
    """Arguments in a dict or a namespace; an empty one for anything else."""
    return dict(args if isinstance(args, Mapping) else getattr(args, '__dict__', {}))


def _as_names(names: Sequence[str] | str | None) -> list[str] | None:
    """Names as a list, None without any."""
    if isinstance(names, str | None):
        return [names] if names else None
    if not isinstance(names, list | tuple):
        raise expected.damaged('the list of class names', names, list | tuple)
    for name in names:
        if not isinstance(name, str):
            raise expected.damaged('the name of a class', name, str)
    return list(names) or None
