"""Learning rate and weight decay of every parameter."""

import re

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from ..errors import SettingError
from ..precision import RFDETRUniformOptimWrapperConstructor

BLOCK = re.compile(r'(?:^|\.)blocks\.(\d+)\.')
EMBEDDINGS = re.compile(r'(?:^|\.)(patch_embed|cls_token|pos_embed|register_tokens)\b')
UNDECAYED = ('gamma', 'rel_pos', 'bias', 'norm')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RFDETROptimWrapperConstructor(RFDETRUniformOptimWrapperConstructor):
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
            (0.8), ``lr_component_decay`` (0.7), and ``lr_embeddings``, the rate of the
            patch kernel, positions and tokens as it is (that of the table above).

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
        super().__init__(optim_wrapper_cfg, {**self.DEFAULTS, **(paramwise_cfg or {})})
        known = {*self.DEFAULTS, 'lr_embeddings'}
        unknown = sorted(self.paramwise_cfg.keys() - known)
        if unknown:
            raise SettingError(
                f'paramwise_cfg has unknown keys {unknown}; '
                f'{type(self).__name__} knows {sorted(known)}'
            )
        if self.base_lr is None or self.base_wd is None:
            raise SettingError(
                'optim_wrapper.optimizer lacks lr or weight_decay; the official values '
                "are dict(type='AdamW', lr=1e-4, weight_decay=1e-4)"
            )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer wrapper.

        Args:
            model: an ``RFDETR`` detector, or a wrapper around one.

        Returns:
            The wrapper, with one optimizer group for each pair of learning rate
            and weight decay.

        Raises:
            SettingError: if the parameters are not those of an RFDETR with its ViT.
        """
        if self.optimizer_cfg['type'] == 'AdamW' and on_cuda(model):
            self.optimizer_cfg = {'fused': True, **self.optimizer_cfg}
        return super().__call__(model)

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Add the groups of a model to ``params``, for mmengine's constructor.

        The last part comes first, since mmengine logs the rate of the first group.
        """
        rates = self._rates(module)
        parts = {name: part_of(name) for name, _ in module.named_parameters()}
        found = parts.values()
        strange = [
            part for part in (*rates, *found) if part not in rates or part not in found
        ]
        if strange:
            raise SettingError(
                f'{type(module).__name__} has {"no" if strange[0] in rates else "a"} '
                f'parameter in "{strange[0]}", and {type(self).__name__} groups those '
                'of RFDETR with its ViT: for another model or backbone set '
                'optim_wrapper.constructor=RFDETRUniformOptimWrapperConstructor'
            )
        place = {part: -index for index, part in enumerate(rates)}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in sorted(
            module.named_parameters(),
            key=lambda item: (place[parts[item[0]]], is_undecayed(item[0])),
        ):
            if parameter.requires_grad:
                decay = 0.0 if is_undecayed(name) else self.base_wd
                groups.setdefault((rates[parts[name]], decay), []).append(parameter)
        params += [
            dict(params=members, lr=lr, weight_decay=decay)
            for (lr, decay), members in groups.items()
        ]
        optimised = sum(map(len, groups.values()))
        print_log(
            f'{optimised} parameters in {len(groups)} groups of the optimizer, '
            f'{len(parts) - optimised} frozen',
            logger='current',
        )

    def _rates(self, model: nn.Module) -> dict[str, float]:
        """The learning rate of each part of the model, from the input on."""
        depth = getattr(getattr(model, 'backbone', None), 'out_indices', (0,))[-1]
        component_decay = self.paramwise_cfg['lr_component_decay']
        encoder_lr = self.paramwise_cfg['lr_encoder'] * component_decay**2
        decay = self.paramwise_cfg['lr_vit_layer_decay']
        blocks = [f'encoder block {block}' for block in range(depth)]
        rates = {
            part: encoder_lr * decay ** (depth + 2 - index)
            for index, part in enumerate(['encoder embeddings', *blocks])
        }
        own = self.paramwise_cfg.get('lr_embeddings', rates['encoder embeddings'])
        rates['encoder embeddings'] = own
        rates['encoder norm'] = encoder_lr
        rates['decoder'] = self.base_lr * component_decay
        rates['everything else'] = self.base_lr
        return rates


def on_cuda(model: nn.Module) -> bool:
    """Whether all parameters lie on CUDA devices."""
    return all(parameter.is_cuda for parameter in model.parameters())


def part_of(name: str) -> str:
    """The part of the model that the parameter ``name`` belongs to."""
    if re.match(r'(\w+_head\.)?decoder\.', name):
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
