"""Hooks that let a model load checkpoints in any of the known formats.

They run before a module takes its own entries from a state dict, so that everything
that ends in ``load_state_dict`` understands the files: mmengine's ``load_checkpoint``,
``load_from`` and ``init_cfg``, and plain torch.
"""

from collections.abc import Callable, Mapping
from functools import partial

from mmengine.logging import print_log
from torch import Tensor, nn

from . import lora_entries
from .expected import entries_that_fit
from .fit import (
    find_class_rows,
    fit_backbone,
    fit_model,
    fits_exactly,
    refuse_fewer_layers,
    shapes,
)
from .layout import INFO_KEY


def register_state_dict_adapter(model: nn.Module) -> None:
    """Let an ``RFDETR`` load official files and files of other sizes.

    Args:
        model: The model, with all its parameters.
    """
    model._register_load_state_dict_pre_hook(_adapt_model, with_module=True)


def register_backbone_adapter(backbone: nn.Module) -> None:
    """Let an ``RFDETRBackbone`` load DINOv2 files and the ViT of RF-DETR files.

    Inside an ``RFDETR`` it finds its entries fitted already and does nothing.

    Args:
        backbone: The backbone, with all its parameters.
    """
    backbone._register_load_state_dict_pre_hook(_adapt_backbone, with_module=True)


# Hooks of torch get the same eight arguments by position. They are functions of the
# module rather than closures over it, since a model is copied for its moving average.
def _adapt_model(module, state_dict, prefix, local_metadata, *_) -> None:
    info = local_metadata.get(INFO_KEY, {})
    # mmdet's inference functions name the classes only when the weights are loaded;
    # these keep their rows then.
    classes = (getattr(module, 'dataset_meta', None) or {}).get('classes')
    own = module.state_dict()
    _adapt(
        module,
        state_dict,
        prefix,
        partial(fit_model, info=info, own=own, classes=classes),
        lambda *args: find_class_rows(*args, info, classes) is None,
    )


def _adapt_backbone(module, state_dict, prefix, local_metadata, *_) -> None:
    _adapt(module, state_dict, prefix, fit_backbone, lambda *args: True)


def _adapt(
    module: nn.Module,
    state_dict: dict[str, Tensor],
    prefix: str,
    fit: Callable,
    keeps_rows: Callable,
) -> None:
    """Replace the module's entries of a state dict, in place, by fitted ones."""
    own = module.state_dict()
    entries = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    expected = shapes(own)
    with entries_that_fit():
        if any(map(lora_entries.has_adapters, (entries, own))):
            fitted = _fit_adapters(own, entries, fit, keeps_rows)
        elif fits_exactly(entries, expected) and keeps_rows(entries, expected):
            refuse_fewer_layers(entries, expected)
            return
        else:
            fitted, report = fit(entries, expected)
            report.log()
    for name in entries:
        del state_dict[prefix + name]
    state_dict.update((prefix + name, value) for name, value in fitted.items())


def _fit_adapters(
    own: Mapping[str, Tensor],
    entries: Mapping[str, Tensor],
    fit: Callable,
    keeps_rows: Callable,
) -> Mapping[str, Tensor]:
    """Fit entries where they, the model or both have LoRA adapters."""
    own_plain, own_adapters, own_scale = lora_entries.separate(own)
    plain, adapters, scale = lora_entries.separate(entries)
    if not any(name.startswith('backbone.') for name in own):
        # The module is the backbone itself, the file may hold a whole model.
        adapters = {k.removeprefix('backbone.'): v for k, v in adapters.items()}
    if own_adapters and adapters:
        lora_entries.check_scale(own_scale, scale)
        same = _kinds(adapters) == _kinds(own_adapters)
        expected = shapes(own)
        if same and fits_exactly(entries, expected) and keeps_rows(plain, expected):
            return entries
    fitted, report = fit(plain, shapes(own_plain))
    report.log()
    if own_adapters:
        return lora_entries.put_beside(fitted, adapters, own, own_scale)
    print_log(
        'The LoRA adapters of the checkpoint are merged into the weights, since '
        'model.backbone.lora is not set.',
        logger='current',
    )
    return lora_entries.merge(fitted, adapters, scale)


def _kinds(adapters: lora_entries.Adapters) -> dict[str, set[str]]:
    """What each layer's adapter consists of."""
    return {layer: set(adapter) for layer, adapter in adapters.items()}
