"""Entries of models with LoRA or DoRA adapters, and without.

Such a model has three layers where a plain one has one packed layer, and adapters
beside each of them. Here the adapters are taken out of a state dict, merged into its
weights, or put beside them. The official package names the encoder differently in such
files; adapters of both have the names that ``peft`` gives them.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..checkpoints.hooks import FORMS, Entries
from ..checkpoints.names import PARTS, unwrap
from ..errors import CheckpointError

SCALE = 'lora_scale'
"""Buffer of the backbone: what the product of the adapters is multiplied with."""

_LOW = ('lora_A', 'lora_B')
_KINDS = (*_LOW, 'lora_magnitude_vector')
_ADAPTER = re.compile(rf'(.+)\.({"|".join(_KINDS)})\.default\.weight')
_OFFICIAL_LAYER = re.compile(
    r'backbone\.0\.encoder\.encoder\.encoder\.layer\.(\d+)\.attention\.attention\.(\w+)'
)
_SPLIT = re.compile(rf'(.+\.qkv)\.({"|".join(PARTS)})\.(weight|bias)')
_PACKED = re.compile(r'(.*\battn\.qkv)\.(weight|bias)')

Fit = Callable[[Entries, Entries], Entries]
Adapters = dict[str, dict[str, Tensor]]
"""Layer (``backbone.blocks.0.attn.qkv.query``) to kind to weight."""


def fit_adapters(fit: Fit) -> Fit:
    """Make the fitting of plain models one of models and files with adapters.

    Args:
        fit: of the entries of a file to the state dict of a model, both plain.
    """

    def fit_with_adapters(entries: Entries, own: Entries) -> Entries:
        plain, adapters, scale = separate(entries)
        own_plain, own_adapters, own_scale = separate(own)
        if own_adapters and adapters:
            check_scale(own_scale, scale)
        fitted = (
            fit(plain, own_plain) if adapters or own_adapters else fit(entries, own)
        )
        if not any(name.startswith('backbone.') for name in fitted):
            # The backbone alone, while the file may hold a whole model.
            adapters = {k.removeprefix('backbone.'): v for k, v in adapters.items()}
        if own_adapters:
            return put_beside(fitted, adapters, own, own_scale)
        if adapters:
            print_log(
                'The LoRA adapters of the checkpoint are merged into the weights.',
                logger='current',
            )
        return merge(fitted, adapters, scale) if adapters else fitted

    return fit_with_adapters


FORMS['lora'] = fit_adapters


def separate(
    entries: Mapping[str, Tensor],
) -> tuple[OrderedDict[str, Tensor], Adapters, float]:
    """Take the adapters out of a state dict, official or of this package.

    Args:
        entries: Names to tensors.

    Returns:
        The entries of the plain model, the adapters under names of this package, and
        the factor on their product (1 in an official file).
    """
    plain, adapters, scale = OrderedDict(), {}, 1.0
    split: dict[str, dict[str, Tensor]] = {}
    for name, value in entries.items():
        name = unwrap(name)
        if match := _ADAPTER.fullmatch(name):
            layer = _own_layer(match[1])
            adapters.setdefault(layer, {})[match[2]] = value
        elif name.rpartition('.')[2] == SCALE:
            scale = float(value)
        elif match := _SPLIT.fullmatch(name):
            split.setdefault(f'{match[1]}.{match[3]}', {})[match[2]] = value
        else:
            plain[name] = value
    for name, parts in split.items():
        plain[name] = torch.cat([parts[part] for part in PARTS])
    return plain, adapters, scale


def merge(
    entries: Mapping[str, Tensor], adapters: Adapters, scale: float
) -> OrderedDict[str, Tensor]:
    """Add adapters to the weights of a plain model.

    Args:
        entries: Names of this package, of a plain model, to tensors.
        adapters: From :func:`separate`.
        scale: From :func:`separate`.

    Raises:
        CheckpointError: there is an adapter on another layer.
    """
    merged = OrderedDict(entries)
    for layer, adapter in adapters.items():
        packed, _, part = layer.rpartition('.')
        name = f'{packed}.weight'
        if part not in PARTS:
            raise CheckpointError(
                f'The checkpoint has an adapter on {layer}, and only those on query, '
                'key and value can be merged: merge it with peft where it was trained.'
            )
        if name not in merged:  # a block that no feature map needs
            continue
        weights = list(merged[name].chunk(3))
        index = PARTS.index(part)
        weights[index] = merged_weight(weights[index], adapter, scale)
        merged[name] = torch.cat(weights)
    return merged


def merged_weight(weight: Tensor, adapter: dict[str, Tensor], scale: float) -> Tensor:
    """The weight (out, in) of a layer and its adapter together, float32."""
    # A file of half precision is merged after loading it, as official ones are.
    adapter = {kind: value.float() for kind, value in adapter.items()}
    total = weight.float() + scale * adapter['lora_B'] @ adapter['lora_A']
    magnitude = adapter.get('lora_magnitude_vector')
    if magnitude is None:
        return total
    # DoRA learns the length of each row apart from its direction.
    return total * (magnitude / total.norm(dim=1))[:, None]


def put_beside(
    entries: Mapping[str, Tensor],
    adapters: Adapters,
    own: Mapping[str, Tensor],
    scale: float,
) -> OrderedDict[str, Tensor]:
    """Give a plain model's entries the layout of a model with adapters.

    Args:
        entries: Names of this package, of a plain model, to tensors.
        adapters: Those of the file, or empty: then the model keeps its own, and DoRA's
            magnitudes become those of the new weights.
        own: State dict of the model.
        scale: Factor on the model's adapters.

    Raises:
        CheckpointError: the file's adapters are of another kind or rank.
    """
    placed = OrderedDict()
    for name, value in entries.items():
        if match := _PACKED.fullmatch(name):
            for part, rows in zip(PARTS, value.chunk(3), strict=True):
                placed[f'{match[1]}.{part}.base_layer.{match[2]}'] = rows
        else:
            placed[name] = value
    for name, value in own.items():
        match = _ADAPTER.fullmatch(name)
        if match and adapters:
            placed[name] = _fitting(name, value, adapters.get(match[1], {}), match[2])
        elif match and match[2] == 'lora_magnitude_vector':
            name_of_base = f'{match[1]}.base_layer.weight'
            weight = placed.get(name_of_base, own[name_of_base]).to(value)
            low = {kind: own[f'{match[1]}.{kind}.default.weight'] for kind in _LOW}
            placed[name] = merged_weight(weight, low, scale).norm(dim=1)
        elif match or name.rpartition('.')[2] == SCALE:
            placed[name] = value
    return placed


def check_scale(own: float, of_file: float) -> None:
    """Refuse adapters that are scaled differently.

    Raises:
        CheckpointError: with both values.
    """
    if abs(own - of_file) > 1e-6:
        raise CheckpointError(
            f'The checkpoint scales its LoRA adapters by {of_file:g}, the model by '
            f'{own:g} (model.backbone.lora: alpha / r): make alpha {of_file:g} times r.'
        )


def _fitting(
    name: str, value: Tensor, adapter: Mapping[str, Tensor], kind: str
) -> Tensor:
    given = adapter.get(kind)
    if given is None or given.shape != value.shape:
        shape = 'no such entry' if given is None else tuple(given.shape)
        raise CheckpointError(
            f'The LoRA adapters of the checkpoint do not fit: {name} is '
            f'{tuple(value.shape)} in the model and {shape} in the file; set '
            'model.backbone.lora to the r and use_dora that they were trained with.'
        )
    return given


def _own_layer(layer: str) -> str:
    """The name of an adapted layer in this package."""
    if match := _OFFICIAL_LAYER.fullmatch(layer):
        return f'backbone.blocks.{match[1]}.attn.qkv.{match[2]}'
    return layer
