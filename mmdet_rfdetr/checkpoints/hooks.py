"""Hooks that let a model load checkpoints in any of the known formats.

They run before a module takes its own entries from a state dict, so that everything
that ends in ``load_state_dict`` understands the files: mmengine's ``load_checkpoint``,
``load_from`` and ``init_cfg``, and plain torch.
"""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from .fit import fit_model
from .layout import INFO_KEY, entries_that_fit

Entries = Mapping[str, Tensor]

FORMS: dict[str, Callable[[Callable[[Entries, Entries], Entries]], Callable]] = {}
"""By name, what makes the fitting of plain models one of models with more entries.

Each takes ``fit(entries, own)``, of a file and of the model, which returns the entries
under the model's names, and returns a function of the same two.
"""


def register_state_dict_adapter(model: nn.Module) -> None:
    """Let an ``RFDETR`` load official files and files of other sizes.

    Args:
        model: The model, with all its parameters.
    """
    model._register_load_state_dict_pre_hook(_adapt_model, with_module=True)


# Hooks of torch get the same eight arguments by position. They are functions of the
# module rather than closures over it, since a model is copied for its moving average.
def _adapt_model(module, state_dict, prefix, local_metadata, *_) -> None:
    info = local_metadata.get(INFO_KEY, {})
    # mmdet's inference functions name the classes only when the weights are loaded;
    # these keep their rows then.
    classes = (getattr(module, 'dataset_meta', None) or {}).get('classes')
    adapt(module, state_dict, prefix, partial(fit_model, info=info, classes=classes))


def adapt(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, fit: Callable
) -> None:
    """Replace the module's entries of a state dict, in place, by fitted ones.

    Args:
        module: The module that loads them.
        state_dict: Of the module or of one that it is part of.
        prefix: Of the names of its entries.
        fit: Returns the fitted entries of a file, given these and the model's own, and
            a report or None.
    """
    entries = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }

    def fit_entries(entries: Entries, own: Entries) -> Entries:
        fitted, report = fit(entries, own)
        if report is not None:
            report.log()
        return fitted

    for form in FORMS.values():
        fit_entries = form(fit_entries)
    with entries_that_fit():
        fitted = fit_entries(entries, module.state_dict())
    for name in entries:
        del state_dict[prefix + name]
    state_dict.update((prefix + name, value) for name, value in fitted.items())
