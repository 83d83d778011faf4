"""Weights that half precision cannot take everywhere.

Trained DINOv2 models have a few channels in the stream of their tokens that are far
larger than all others. Weights from a rule have none, so nothing overflows where their
squares are summed, and a file with the norms in half precision passes by chance.
"""

import copy

import torch

VALUE = 300.0
"""Its square is beyond 65504, the largest number of float16."""


def norms_of(model):
    """The layer norms that read the stream of the encoder's tokens, by name."""
    backbone = model.backbone
    norms = {'norm': backbone.norm}
    for index, block in enumerate(backbone.blocks):
        norms[f'blocks.{index}.norm1'] = block.norm1
        norms[f'blocks.{index}.norm2'] = block.norm2
    return norms


@torch.no_grad()
def streams_of(model, images):
    """What each of these norms reads: (..., C) by the name of the norm."""
    read, handles = {}, []
    for name, norm in norms_of(model).items():

        def keep(_, arguments, name=name):
            read[name] = arguments[0].detach()

        handles.append(norm.register_forward_pre_hook(keep))
    model(images, mode='tensor')
    for handle in handles:
        handle.remove()
    return read


@torch.no_grad()
def stressed(model, images, channel=0):
    """A copy of a model with one channel of the stream at +-300.

    The upper half of the image has the one sign and the lower half the other. Norms
    leave the channel out and give the others the scale that they had, so the model
    finds about what it found before.

    Args:
        model: an ``RFDETR`` in evaluation mode.
        images: (B, 3, H, W), to see what scale the stream has.
        channel: which one.
    """
    streams = streams_of(model, images)
    changed = copy.deepcopy(model)
    backbone = changed.backbone
    table = backbone.pos_embed
    signs = torch.ones(table.shape[1])
    signs[1 + table.shape[1] // 2 :] = -1
    table[0, :, channel] = VALUE * signs
    backbone.cls_token[..., channel] = 0
    if backbone.num_registers:
        backbone.register_tokens[..., channel] = VALUE
    width = table.shape[2]
    for name, norm in norms_of(changed).items():
        variance = streams[name].var(-1).mean()
        norm.weight *= (1 + VALUE**2 / width / variance).sqrt()
        norm.weight[channel] = 0
    return changed
