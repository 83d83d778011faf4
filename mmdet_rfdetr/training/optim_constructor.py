"""Learning rate and weight decay of every parameter."""

import re
from collections.abc import Iterable

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from ..errors import SettingError
from ..ops.unwrapped import unwrap_model
from ..precision import resolve_optim_wrapper

BLOCK = re.compile(r'(?:^|\.)blocks\.(\d+)\.')
EMBEDDINGS = re.compile(r'(?:^|\.)(patch_embed|cls_token|pos_embed|register_tokens)\b')
Members = dict[str, list[tuple[str, nn.Parameter]]]

UNDECAYED = ('gamma', 'rel_pos', 'bias', 'norm')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RFDETROptimWrapperConstructor:
    """Build the optimizer with RF-DETR's three families of parameters.

    ==================  ====================================  =================
    family              learning rate                         weight decay
    ==================  ====================================  =================
    encoder (the ViT)   ``lr_encoder`` x                      the optimizer's;
                        ``lr_vit_layer_decay ** (N + 1 - i)`` 0 for embeddings,
                        x ``lr_component_decay ** 2``         norms and biases
    decoder             ``lr`` x ``lr_component_decay``       the optimizer's
    everything else     ``lr``                                the optimizer's
    ==================  ====================================  =================

    ``N = out_indices[-1] + 1``; ``i`` is 0 for the embeddings, ``b + 1`` for
    block b and ``N + 1`` for the last norm. ``lr`` and ``weight_decay`` are the
    optimizer's own. Layer scale is decayed. This is the official package's
    (1.11.2) rule. Parameters of equal rate and decay share one optimizer group.
    On CUDA, AdamW uses its fused kernel unless the config says otherwise.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper, with ``optimizer``.
        paramwise_cfg: may set ``lr_encoder`` (1.5e-4), ``lr_vit_layer_decay``
            (0.8) and ``lr_component_decay`` (0.7).

    Raises:
        SettingError: if a key is unknown, or the optimizer's ``lr`` or
            ``weight_decay`` is not given.
    """

    DEFAULTS = {
        'lr_encoder': 1.5e-4,
        'lr_vit_layer_decay': 0.8,
        'lr_component_decay': 0.7,
    }

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        rates = {**self.DEFAULTS, **(paramwise_cfg or {})}
        unknown = sorted(rates.keys() - self.DEFAULTS.keys())
        if unknown:
            raise SettingError(
                f'paramwise_cfg has unknown keys {unknown}; '
                f'{type(self).__name__} knows {sorted(self.DEFAULTS)}'
            )
        vars(self).update(rates)
        optimizer = optim_wrapper_cfg.get('optimizer') or {}
        missing = [key for key in ('lr', 'weight_decay') if key not in optimizer]
        if missing:
            raise SettingError(
                f'optim_wrapper.optimizer lacks {missing}; the official values are '
                "dict(type='AdamW', lr=1e-4, weight_decay=1e-4)"
            )
        self.optim_wrapper_cfg = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper and log a table of its groups.

        Args:
            model: an ``RFDETR`` detector, or a wrapper around one.

        Returns:
            The wrapper, with one optimizer group for each pair of learning rate
            and weight decay.

        Raises:
            SettingError: if the parameters are not those of an RFDETR with its ViT.
        """
        model = unwrap_model(model)
        cfg = resolve_optim_wrapper(self.optim_wrapper_cfg, model)
        optimizer_cfg = dict(cfg.pop('optimizer'))
        if optimizer_cfg['type'] == 'AdamW' and on_cuda(model):
            optimizer_cfg.setdefault('fused', True)
        rates = self._rates(model, optimizer_cfg['lr'])
        members = self._members(model, rates)
        groups = group(rates, members, optimizer_cfg['weight_decay'])
        print_log(summary(rates, members, groups), logger='current')
        optimizer = OPTIMIZERS.build(dict(optimizer_cfg, params=groups))
        cfg.setdefault('type', 'OptimWrapper')
        return OPTIM_WRAPPERS.build(dict(cfg, optimizer=optimizer))

    def _rates(self, model: nn.Module, lr: float) -> dict[str, float]:
        """The learning rate of each part of the model, in the order of the table."""
        depth = getattr(getattr(model, 'backbone', None), 'out_indices', (0,))[-1]
        parts = ['encoder embeddings']
        parts += [f'encoder block {block}' for block in range(depth)]
        encoder_lr = self.lr_encoder * self.lr_component_decay**2
        decay = self.lr_vit_layer_decay
        rates = {
            part: encoder_lr * decay ** (depth + 2 - index)
            for index, part in enumerate(parts)
        }
        rates['encoder norm'] = encoder_lr
        rates['decoder'] = lr * self.lr_component_decay
        rates['everything else'] = lr
        return rates

    def _members(self, model: nn.Module, parts: Iterable[str]) -> Members:
        """Sort the parameters of ``model`` into its parts."""
        members: Members = {part: [] for part in parts}
        for name, parameter in model.named_parameters():
            if part_of(name) not in members:
                raise self._refusal(model, f'has a parameter in "{part_of(name)}"')
            members[part_of(name)].append((name, parameter))
        for part, found in members.items():
            if not found:
                raise self._refusal(model, f'has no parameter in "{part}"')
        return members

    def _refusal(self, model: nn.Module, what: str) -> SettingError:
        name = type(model).__name__
        if hasattr(model, 'backbone'):
            name += f' with {type(model.backbone).__name__}'
        return SettingError(
            f'{name} {what}, and {type(self).__name__} groups those of RFDETR with '
            'its ViT: for another model or backbone set '
            'optim_wrapper.constructor=RFDETRUniformOptimWrapperConstructor'
        )


def on_cuda(model: nn.Module) -> bool:
    """Whether all parameters lie on CUDA devices."""
    return all(parameter.is_cuda for parameter in model.parameters())


def part_of(name: str) -> str:
    """The row of the table that the parameter ``name`` belongs to."""
    if name.startswith('decoder.'):
        return 'decoder'
    if not name.startswith('backbone.'):
        return 'everything else'
    if EMBEDDINGS.search(name):
        return 'encoder embeddings'
    block = BLOCK.search(name)
    return f'encoder block {block[1]}' if block else 'encoder norm'


def is_undecayed(name: str) -> bool:
    """Whether the parameter ``name`` has no weight decay."""
    return name.startswith('backbone.') and (
        any(word in name for word in UNDECAYED) or bool(EMBEDDINGS.search(name))
    )


def group(rates: dict[str, float], members: Members, weight_decay: float) -> list[dict]:
    """Optimizer groups, one for each pair of learning rate and weight decay.

    The last part comes first, since mmengine logs the rate of the first group.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for part, lr in reversed(rates.items()):
        for undecayed in (False, True):
            found = [
                parameter
                for name, parameter in members[part]
                if parameter.requires_grad and is_undecayed(name) == undecayed
            ]
            if found:
                decay = 0.0 if undecayed else weight_decay
                groups.setdefault((lr, decay), []).extend(found)
    return [
        dict(params=parameters, lr=lr, weight_decay=decay)
        for (lr, decay), parameters in groups.items()
    ]


def summary(rates: dict[str, float], members: Members, groups: list[dict]) -> str:
    """One line for each part of the model, as text."""
    tensors = [parameter for entry in groups for parameter in entry['params']]
    scalars = sum(parameter.numel() for parameter in tensors)
    lines = [
        f'{scalars:,} parameters in {len(tensors)} tensors and {len(groups)} groups',
        f'{"part":<20}{"lr":>11}{"tensors":>9}{"frozen":>8}',
    ]
    for part, lr in rates.items():
        frozen = sum(not parameter.requires_grad for _, parameter in members[part])
        trained = len(members[part]) - frozen
        lines.append(f'{part:<20}{lr:>11.4g}{trained:>9}{frozen:>8}')
    return '\n'.join(lines)
