"""Whether a state dict is one that a model can have.

Files come from strangers, from broken downloads and from scripts. What is wrong with
one is told here, before arithmetic on its entries fails somewhere.
"""

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .errors import CheckpointError

Shape = tuple[int, ...]

# Sizes by letter: C width of the ViT, F of its feed-forward part, N entries of the
# position table, I channels of an image, p side of a patch; D width of the decoder, E
# of its feed-forward part, B of bottlenecks, S sampling points; K classes, G groups, Q
# queries; M width and H of the feed-forward part of the mask head. 3C is three times C,
# ? is any size. A letter gets its value where it first stands alone. # stands for all
# numbers from 0; what stands behind a bar is the bias of a layer.
_ENTRIES = {
    'reference_embedding': 'G Q 4',
    'query_embedding': 'G Q D',
    'backbone.cls_token': '1 1 C',
    'backbone.pos_embed': '1 N C',
    'backbone.patch_embed': 'C I p p | C',
    'backbone.norm': 'C | C',
    'backbone.blocks.#.norm1': 'C | C',
    'backbone.blocks.#.attn.qkv': '3C C | 3C',
    'backbone.blocks.#.attn.proj': 'C C | C',
    'backbone.blocks.#.layer_scale1': 'C',
    'backbone.blocks.#.norm2': 'C | C',
    'backbone.blocks.#.mlp.fc1': 'F C | F',
    'backbone.blocks.#.mlp.fc2': 'C F | C',
    'backbone.blocks.#.layer_scale2': 'C',
    'neck.stages.#.c2f.cv1.conv.weight': 'D ? 1 1',
    'neck.stages.#.c2f.cv1.norm': 'D | D',
    'neck.stages.#.c2f.cv2.conv.weight': 'D ? 1 1',
    'neck.stages.#.c2f.cv2.norm': 'D | D',
    'neck.stages.#.c2f.bottlenecks.#.cv1.conv.weight': 'B B 3 3',
    'neck.stages.#.c2f.bottlenecks.#.cv1.norm': 'B | B',
    'neck.stages.#.c2f.bottlenecks.#.cv2.conv.weight': 'B B 3 3',
    'neck.stages.#.c2f.bottlenecks.#.cv2.norm': 'B | B',
    'neck.stages.#.norm': 'D | D',
    'decoder.norm': 'D | D',
    'decoder.ref_point_head.0': 'D 2D | D',
    'decoder.ref_point_head.1': 'D D | D',
    'decoder.layers.#.self_attn.in_proj_weight': '3D D',
    'decoder.layers.#.self_attn.in_proj_bias': '3D',
    'decoder.layers.#.self_attn.out_proj': 'D D | D',
    'decoder.layers.#.norm1': 'D | D',
    'decoder.layers.#.cross_attn.attention_weights': 'S D | S',
    'decoder.layers.#.cross_attn.sampling_offsets': '2S D | 2S',
    'decoder.layers.#.cross_attn.value_proj': 'D D | D',
    'decoder.layers.#.cross_attn.output_proj': 'D D | D',
    'decoder.layers.#.norm2': 'D | D',
    'decoder.layers.#.linear1': 'E D | E',
    'decoder.layers.#.linear2': 'D E | D',
    'decoder.layers.#.norm3': 'D | D',
    'bbox_head.fc_cls': 'K D | K',
    'bbox_head.fc_reg.0': 'D D | D',
    'bbox_head.fc_reg.1': 'D D | D',
    'bbox_head.fc_reg.2': '4 D | 4',
    'query_selection.fc': 'G D D | G D',
    'query_selection.norm': 'G D | G D',
    'query_selection.fc_cls': 'G K D | G K',
    'query_selection.fc_reg.0': 'G D D | G D',
    'query_selection.fc_reg.1': 'G D D | G D',
    'query_selection.fc_reg.2': 'G 4 D | G 4',
}
_MASK_HEAD = 'mask_head.'
_MASK_ENTRIES = {
    _MASK_HEAD + 'bias': '1',
    _MASK_HEAD + 'spatial_features_proj': 'M D 1 1 | M',
    _MASK_HEAD + 'query_features_proj': 'M D | M',
    _MASK_HEAD + 'query_features_block.norm_in': 'D | D',
    _MASK_HEAD + 'query_features_block.layers.0': 'H D | H',
    _MASK_HEAD + 'query_features_block.layers.2': 'D H | D',
    _MASK_HEAD + 'blocks.#.dwconv': 'D 1 3 3 | D',
    _MASK_HEAD + 'blocks.#.norm': 'D | D',
    _MASK_HEAD + 'blocks.#.pwconv1': 'D D | D',
}


def check_tensors(state_dict: Mapping) -> None:
    """Refuse entries that are no ordinary tensors.

    Args:
        state_dict: Of a file, names to tensors.

    Raises:
        CheckpointError: with the first entry that is none.
    """
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            what = f'a {type(value).__name__}'
        elif value.layout != torch.strided or value.is_meta or value.is_quantized:
            what = 'a tensor without plain numbers'
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            # One number can be said to be thousands, until an operation writes them.
            what = f'fewer numbers than its shape {tuple(value.shape)} has'
        else:
            continue
        raise CheckpointError(
            f'The checkpoint is damaged: it holds {what} as {name!r}; get the file '
            'again.'
        )


def check_complete(shapes: Mapping[str, Shape]) -> None:
    """Refuse a state dict that lacks entries, or whose sizes contradict each other.

    Args:
        shapes: Names of this package, of a whole model without adapters, to shapes.

    Raises:
        CheckpointError: with the first entry that is missing, or with its shape.
    """
    entries = dict(_ENTRIES)
    if any(name.startswith(_MASK_HEAD) for name in shapes):
        entries |= _MASK_ENTRIES
    sizes: dict[str, int] = {}
    for layer, dims in entries.items():
        weight, bar, bias = dims.partition(' | ')
        for name in _numbered(layer, shapes):
            if bar:
                _check_entry(f'{name}.weight', weight, shapes, sizes)
                _check_entry(f'{name}.bias', bias, shapes, sizes)
            else:
                _check_entry(name, dims, shapes, sizes)
    if not is_position_table(sizes['N']):
        raise contradictory('backbone.pos_embed', shapes['backbone.pos_embed'])


def is_position_table(num_entries: int) -> bool:
    """Tell whether these can be the entry of the class and a square of patches."""
    return num_entries > 1 and math.isqrt(num_entries - 1) ** 2 == num_entries - 1


def in_order(name: str, members: Mapping, wanted: Iterable) -> list:
    """Take the members that one entry is joined from.

    Args:
        name: The joined entry, for the message.
        members: Number or word to tensor, or to the shape of one.
        wanted: Numbers or words in the order of the members.

    Raises:
        CheckpointError: one of them is missing, or has another shape than the first.
    """
    wanted = list(wanted)
    missing = [str(member) for member in wanted if member not in members]
    if missing:
        raise CheckpointError(
            f'The checkpoint is incomplete: of the entries that make up {name!r} it '
            f'lacks {", ".join(missing)}; get the file again.'
        )
    joined = [members[member] for member in wanted]
    shapes = [
        member if isinstance(member, tuple) else tuple(getattr(member, 'shape', ()))
        for member in joined
    ]
    for shape in shapes:
        if not shape or shape != shapes[0]:
            raise contradictory(name, shape)
    return joined


def incomplete(name: str) -> CheckpointError:
    """The error for an entry that is missing."""
    return CheckpointError(
        f'The checkpoint is incomplete: it lacks {name!r}; get the file again.'
    )


def contradictory(name: str, shape: Shape) -> CheckpointError:
    """The error for an entry whose shape cannot be that of a model."""
    return CheckpointError(
        f'The checkpoint contradicts itself: no RF-DETR model with its other entries '
        f'has {name!r} of the shape {tuple(shape)}; get the file again.'
    )


def _numbered(template: str, names: Iterable[str]) -> list[str]:
    """The names that a template stands for, by the numbers that occur."""
    before, number, after = template.partition('#')
    if not number:
        return [template]
    pattern = re.compile(re.escape(before) + r'(\d+)\.')
    found = {match[1] for name in names if (match := pattern.match(name))}
    return [
        name
        for index in range(max(len(found), 1))
        for name in _numbered(f'{before}{index}{after}', names)
    ]


def _check_entry(
    name: str, dims: str, shapes: Mapping[str, Shape], sizes: dict[str, int]
) -> None:
    """Compare a shape with its sizes by letter, which the first to have one sets."""
    if name not in shapes:
        raise incomplete(name)
    shape, wanted = shapes[name], dims.split()
    if len(shape) != len(wanted) or 0 in shape:
        raise contradictory(name, shape)
    for size, dim in zip(shape, wanted, strict=True):
        factor, letter = re.fullmatch(r'(\d*)(\D?)', dim).groups()
        if letter == '?':
            continue
        if letter and not factor:
            sizes.setdefault(letter, size)
        if size != int(factor or 1) * sizes.get(letter, 1):
            raise contradictory(name, shape)
