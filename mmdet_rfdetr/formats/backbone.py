"""Checkpoints of a ViT alone, or of an RF-DETR model, for the backbone of any model."""

from collections import OrderedDict

from torch import nn

from ..checkpoints.fit import (
    Fitted,
    fit_entries,
    fit_vit_entry,
    fits_exactly,
    settle_unused_vit_entries,
)
from ..checkpoints.hooks import Entries, adapt
from ..checkpoints.names import from_official, is_official
from ..checkpoints.report import LoadReport
from ..errors import CheckpointError, list_names


def register_backbone_adapter(backbone: nn.Module) -> None:
    """Let an ``RFDETRBackbone`` load DINOv2 files and the ViT of RF-DETR files.

    Inside an ``RFDETR`` it finds its entries fitted already and does nothing.

    Args:
        backbone: The backbone, with all its parameters.
    """
    backbone._register_load_state_dict_pre_hook(_adapt_backbone, with_module=True)


# A function of the module rather than a closure over it, since a model is copied for
# its moving average.
def _adapt_backbone(module, state_dict, prefix, *_) -> None:
    adapt(module, state_dict, prefix, fit_backbone)


def fit_backbone(state_dict: Entries, own: Entries) -> Fitted:
    """Fit a ViT, alone or of an RF-DETR file, to an ``RFDETRBackbone``.

    Args:
        state_dict: Names to tensors.
        own: State dict of the backbone.

    Returns:
        Entries under the backbone's names, and a report of what was changed; see
        :func:`fit_model`.

    Raises:
        CheckpointError: there is no DINOv2 ViT in it, or one of another width or
            with too few blocks.
    """
    if fits_exactly(state_dict, own):
        return state_dict, None
    whole = from_official(state_dict) if is_official(state_dict) else state_dict
    marker = 'blocks.0.layer_scale1'
    prefix = next((x.removesuffix(marker) for x in whole if x.endswith(marker)), None)
    if prefix is None:
        raise CheckpointError(
            'The checkpoint holds no DINOv2 backbone, its entries are '
            f'{list_names([*state_dict])}: give a DINOv2 file (original or '
            'Hugging Face names) or an RF-DETR file.'
        )
    entries = OrderedDict(
        (name.removeprefix(prefix), value)
        for name, value in whole.items()
        if name.startswith(prefix)
    )
    report = LoadReport('Backbone', len(entries))
    settle_unused_vit_entries(entries, own, '')
    fit_entries(entries, own, fit_vit_entry, report)
    return entries, report
