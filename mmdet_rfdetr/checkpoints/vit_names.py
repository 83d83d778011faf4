"""Finding a ViT in any file that holds a DINOv2 backbone.

Understood are the original DINOv2 names, those of Hugging Face, and the ViT inside an
RF-DETR file, official or of this package.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from .names import vit_from_huggingface


def find_vit(
    state_dict: Mapping[str, Tensor],
) -> tuple[str, OrderedDict[str, Tensor]] | None:
    """Find a ViT in a state dict, whatever its names and wherever it sits.

    Args:
        state_dict: Names to tensors of any model.

    Returns:
        What was found, and the ViT's entries under the names that they have within
        this package's backbone (``blocks.0.attn.qkv.weight``); None without a ViT.
    """
    for marker, title, convert in _STYLES:
        for name in state_dict:
            prefix = name.removesuffix(marker)
            if prefix != name and (not prefix or prefix.endswith('.')):
                inner = OrderedDict(
                    (key.removeprefix(prefix), value)
                    for key, value in state_dict.items()
                    if key.startswith(prefix)
                )
                return title, convert(inner)
    return None


def _from_dinov2(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    def rename(name: str) -> str:
        name = name.replace('patch_embed.proj.', 'patch_embed.')
        return re.sub(r'\.ls([12])\.gamma$', r'.layer_scale\1', name)

    return OrderedDict((rename(name), value) for name, value in state_dict.items())


# An entry that every ViT of this style has, what to call it, and the way to own names.
_STYLES = (
    ('blocks.0.layer_scale1', 'RF-DETR backbone', OrderedDict),
    ('blocks.0.ls1.gamma', 'DINOv2 backbone', _from_dinov2),
    ('encoder.layer.0.layer_scale1.lambda1', 'DINOv2 backbone', vit_from_huggingface),
)
