"""DINOv2 files, of its authors and of Hugging Face, in the backbone of any model."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

from torch import Tensor

from ..checkpoints.hooks import FORMS, Entries
from ..checkpoints.names import VIT, from_official, is_official, is_own
from ..errors import CheckpointError

Fit = Callable[[Entries, Entries], Entries]


def fit_vit(fit: Fit) -> Fit:
    """Make the fitting of a backbone one that knows other names of its ViT.

    Args:
        fit: of the entries of a file to the state dict of a model.
    """

    def fit_any_vit(entries: Entries, own: Entries) -> Entries:
        known = is_official(entries) or is_own(entries)
        found = None if known else find_vit(entries)
        if found is None:
            return fit(entries, own)
        if is_own(own):
            raise CheckpointError(
                'The checkpoint holds a DINOv2 backbone only, not a whole RF-DETR '
                "model: load it with model.backbone.init_cfg=dict(type='Pretrained', "
                'checkpoint=...).'
            )
        return fit(found, own)

    return fit_any_vit


FORMS['vit'] = fit_vit


def find_vit(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor] | None:
    """Find a DINOv2 ViT in a state dict, whatever its names and wherever it sits.

    Args:
        state_dict: Names to tensors of any model.

    Returns:
        The ViT's entries under the names that they have within this package's backbone
        (``blocks.0.attn.qkv.weight``); None without a ViT.
    """
    for marker, convert in _STYLES.items():
        for name in state_dict:
            prefix = name.removesuffix(marker)
            if prefix != name and (not prefix or prefix.endswith('.')):
                inner = OrderedDict(
                    (key.removeprefix(prefix), value)
                    for key, value in state_dict.items()
                    if key.startswith(prefix)
                )
                return convert(inner)
    return None


def _from_dinov2(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    def rename(name: str) -> str:
        name = name.replace('patch_embed.proj.', 'patch_embed.')
        return re.sub(r'\.ls([12])\.gamma$', r'.layer_scale\1', name)

    return OrderedDict((rename(name), value) for name, value in state_dict.items())


def _from_huggingface(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The official ViT is that model, so that its names are the official ones."""
    official = {}
    for name, value in state_dict.items():
        for short, long in _SHORT_NAMES.items():
            name = name.replace(short, long)
        official[VIT + name] = value
    return OrderedDict(
        (name.removeprefix('backbone.').removeprefix(VIT), value)
        for name, value in from_official(official).items()
    )


# Transformers 5 keeps shorter names of the attention layers in memory.
_SHORT_NAMES = {
    '.attention.q_proj.': '.attention.attention.query.',
    '.attention.k_proj.': '.attention.attention.key.',
    '.attention.v_proj.': '.attention.attention.value.',
    '.attention.o_proj.': '.attention.output.dense.',
}
# An entry that every ViT of this style has, and the way to own names.
_STYLES = {
    'blocks.0.ls1.gamma': _from_dinov2,
    'encoder.layer.0.layer_scale1.lambda1': _from_huggingface,
}
