"""The official package's parameter names and this package's, in both directions.

Most entries only change their name. Three kinds change their shape: the query, key
and value layers of a ViT block are one packed layer here, the heads of all query
groups are stacked on a first axis, and so are the two query tables. Nothing is
lost: :func:`to_official` undoes :func:`from_official` tensor for tensor.

Names are those of the plain model, as the official files hold them under ``model``.
"""

import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .contents import contradictory, in_order
from .errors import CheckpointError
from .lora import unwrap

VIT = 'backbone.0.encoder.encoder.'
"""Prefix of the ViT's entries in an official file."""

VIT_BLOCKS = 12
"""Blocks of every official ViT, those that no feature map needs included."""

KEYPOINT_MASK = '_kp_active_mask'
"""Official buffer, empty for models without keypoints; there is no such entry here."""

# In a template # stands for a number, * for one word, ** for the rest of a name; both
# sides of a pair have the same placeholders in the same order.
_VIT_RENAMES = (
    ('embeddings.patch_embeddings.projection.*', 'backbone.patch_embed.*'),
    ('embeddings.cls_token', 'backbone.cls_token'),
    ('embeddings.mask_token', 'backbone.mask_token'),
    ('embeddings.position_embeddings', 'backbone.pos_embed'),
    ('embeddings.register_tokens', 'backbone.register_tokens'),
    ('encoder.layer.#.norm1.*', 'backbone.blocks.#.norm1.*'),
    ('encoder.layer.#.attention.output.dense.*', 'backbone.blocks.#.attn.proj.*'),
    ('encoder.layer.#.layer_scale1.lambda1', 'backbone.blocks.#.layer_scale1'),
    ('encoder.layer.#.norm2.*', 'backbone.blocks.#.norm2.*'),
    ('encoder.layer.#.mlp.fc1.*', 'backbone.blocks.#.mlp.fc1.*'),
    ('encoder.layer.#.mlp.fc2.*', 'backbone.blocks.#.mlp.fc2.*'),
    ('encoder.layer.#.layer_scale2.lambda1', 'backbone.blocks.#.layer_scale2'),
    ('layernorm.*', 'backbone.norm.*'),
)
_SAMPLING = 'backbone.0.projector.stages_sampling.'
_STAGES = 'backbone.0.projector.stages.'
_RENAMES = (
    *((VIT + official, own) for official, own in _VIT_RENAMES),
    (_SAMPLING + '#.#.0.*', 'neck.stages.#.branches.#.*'),
    (_SAMPLING + '#.#.0.conv.*', 'neck.stages.#.branches.#.conv.*'),
    (_SAMPLING + '#.#.0.bn.*', 'neck.stages.#.branches.#.norm.*'),
    (_STAGES + '#.0.*.conv.*', 'neck.stages.#.c2f.*.conv.*'),
    (_STAGES + '#.0.*.bn.*', 'neck.stages.#.c2f.*.norm.*'),
    (_STAGES + '#.0.m.#.*.conv.*', 'neck.stages.#.c2f.bottlenecks.#.*.conv.*'),
    (_STAGES + '#.0.m.#.*.bn.*', 'neck.stages.#.c2f.bottlenecks.#.*.norm.*'),
    (_STAGES + '#.1.*', 'neck.stages.#.norm.*'),
    ('transformer.decoder.layers.#.**', 'decoder.layers.#.**'),
    ('transformer.decoder.norm.*', 'decoder.norm.*'),
    ('transformer.decoder.ref_point_head.layers.#.*', 'decoder.ref_point_head.#.*'),
    ('class_embed.*', 'bbox_head.fc_cls.*'),
    ('bbox_embed.layers.#.*', 'bbox_head.fc_reg.#.*'),
    ('segmentation_head.**', 'mask_head.**'),
)
# The first # of the official name is the group, which becomes the first axis.
_GROUP_STACKS = (
    ('transformer.enc_output.#.*', 'query_selection.fc.*'),
    ('transformer.enc_output_norm.#.*', 'query_selection.norm.*'),
    ('transformer.enc_out_class_embed.#.*', 'query_selection.fc_cls.*'),
    ('transformer.enc_out_bbox_embed.#.layers.#.*', 'query_selection.fc_reg.#.*'),
)
_QUERY_TABLES = {
    'refpoint_embed.weight': 'reference_embedding',
    'query_feat.weight': 'query_embedding',
}
_QKV = ('query', 'key', 'value')
_QKV_OFFICIAL = VIT + 'encoder.layer.#.attention.attention.{}.*'
_QKV_OWN = 'backbone.blocks.#.attn.qkv.*'

_OFFICIAL_MARKERS = (*_QUERY_TABLES, 'class_embed.weight', VIT + 'embeddings.cls_token')
_OWN_MARKERS = (*_QUERY_TABLES.values(), 'bbox_head.fc_cls.weight')


def is_official(names: Iterable[str]) -> bool:
    """Tell whether names are those of an official RF-DETR model.

    Args:
        names: Keys of a state dict.
    """
    return set(map(unwrap, names)).issuperset(_OFFICIAL_MARKERS)


def is_own(names: Iterable[str]) -> bool:
    """Tell whether names are those of an RF-DETR model of this package.

    Args:
        names: Keys of a state dict.
    """
    return set(names).issuperset(_OWN_MARKERS)


def from_official(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give official entries this package's names and layout.

    Entries without a counterpart keep their name, so that a caller can list them.

    Args:
        state_dict: Official names to tensors.

    Returns:
        Own names to tensors; renamed ones share their storage with the input.

    Raises:
        CheckpointError: a group of entries that belong together is incomplete, or
            their sizes differ.
    """
    own = OrderedDict()
    groups = defaultdict(dict)
    packed = defaultdict(dict)
    for name, value in state_dict.items():
        if name == KEYPOINT_MASK and not value.numel():
            continue
        if (found := _qkv_from_official(name)) is not None:
            target, part = found
            packed[target][part] = value
        elif (found := _group_from_official(name)) is not None:
            target, group = found
            groups[target][group] = value
        else:
            own[_rename(name, _FROM_OFFICIAL)] = value
    for target, parts in packed.items():
        own[target] = torch.cat(in_order(target, parts, _QKV))
    for target, members in groups.items():
        own[target] = torch.stack(in_order(target, members, range(len(members))))
    num_groups = max(map(len, groups.values()), default=1)
    for official, target in _QUERY_TABLES.items():
        if official in own:
            own[target] = _split_groups(official, own.pop(official), num_groups)
    return own


def to_official(
    state_dict: Mapping[str, Tensor], *, num_blocks: int = VIT_BLOCKS
) -> OrderedDict[str, Tensor]:
    """Give entries of this package the official names and layout.

    The official model always builds all blocks of its ViT. Blocks that no feature
    map needs, and which a model of this package never had, are filled in: their
    linear layers with zeros and their norms with the identity.

    Args:
        state_dict: Own names to tensors.
        num_blocks: Blocks of the official ViT.

    Returns:
        Official names to tensors, which share no storage with each other.
    """
    state_dict = _with_all_blocks(state_dict, num_blocks)
    official = OrderedDict()
    for name, value in state_dict.items():
        if (match := _QKV_FROM_OWN.fullmatch(name)) is not None:
            for part, rows in zip(_QKV, value.chunk(3), strict=True):
                official[_fill(_QKV_OFFICIAL.format(part), match.groups())] = rows
        elif (templates := _group_to_official(name)) is not None:
            template, fields = templates
            for group, member in enumerate(value):
                official[_fill(template, (str(group), *fields))] = member
        elif name in _TABLES_TO_OFFICIAL:
            official[_TABLES_TO_OFFICIAL[name]] = value.flatten(0, 1)
        else:
            official[_rename(name, _TO_OFFICIAL)] = value
    official.setdefault(KEYPOINT_MASK, torch.zeros(0, 0, dtype=torch.bool))
    # Slices of one storage would be written whole, each of them.
    return OrderedDict((name, value.clone()) for name, value in official.items())


def vit_from_huggingface(
    state_dict: Mapping[str, Tensor],
) -> OrderedDict[str, Tensor]:
    """Give a Hugging Face DINOv2 model's entries the backbone's names.

    The official ViT is that model, so that its names are the official ones without
    :data:`VIT`; transformers 5 keeps shorter names of the attention layers in memory.

    Args:
        state_dict: Names such as ``embeddings.cls_token`` to tensors.

    Returns:
        Names within this package's backbone (``cls_token``) to tensors.
    """
    short = {'q_proj': 'query', 'k_proj': 'key', 'v_proj': 'value'}
    official = {}
    for name, value in state_dict.items():
        name = re.sub(
            r'\.attention\.([qkv]_proj)\.',
            lambda match: f'.attention.attention.{short[match[1]]}.',
            name,
        ).replace('.attention.o_proj.', '.attention.output.dense.')
        official[VIT + name] = value
    return OrderedDict(
        (name.removeprefix('backbone.').removeprefix(VIT), value)
        for name, value in from_official(official).items()
    )


def _pattern(template: str) -> re.Pattern:
    pattern = re.escape(template).replace(r'\#', r'(\d+)').replace(r'\*\*', '(.+)')
    return re.compile(pattern.replace(r'\*', r'([a-z]\w*)'))


def _fill(template: str, fields: Iterable[str]) -> str:
    fields = iter(fields)
    return re.sub(r'#|\*\*|\*', lambda _: next(fields), template)


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for pattern, target in rules:
        if (match := pattern.fullmatch(name)) is not None:
            return _fill(target, match.groups())
    return name


_FROM_OFFICIAL = [(_pattern(official), own) for official, own in _RENAMES]
_TO_OFFICIAL = [(_pattern(own), official) for official, own in _RENAMES]
_GROUPS_FROM_OFFICIAL = [(_pattern(official), own) for official, own in _GROUP_STACKS]
_GROUPS_TO_OFFICIAL = [(_pattern(own), official) for official, own in _GROUP_STACKS]
_QKV_FROM_OFFICIAL = {part: _pattern(_QKV_OFFICIAL.format(part)) for part in _QKV}
_QKV_FROM_OWN = _pattern(_QKV_OWN)
_TABLES_TO_OFFICIAL = {own: official for official, own in _QUERY_TABLES.items()}


def _qkv_from_official(name: str) -> tuple[str, str] | None:
    for part, pattern in _QKV_FROM_OFFICIAL.items():
        if (match := pattern.fullmatch(name)) is not None:
            return _fill(_QKV_OWN, match.groups()), part
    return None


def _group_from_official(name: str) -> tuple[str, int] | None:
    for pattern, own in _GROUPS_FROM_OFFICIAL:
        if (match := pattern.fullmatch(name)) is not None:
            group, *fields = match.groups()
            return _fill(own, fields), int(group)
    return None


def _group_to_official(name: str) -> tuple[str, tuple[str, ...]] | None:
    for pattern, official in _GROUPS_TO_OFFICIAL:
        if (match := pattern.fullmatch(name)) is not None:
            return official, match.groups()
    return None


def _split_groups(name: str, table: Tensor, num_groups: int) -> Tensor:
    """(G * Q, D) to (G, Q, D)."""
    if table.ndim != 2:
        raise contradictory(name, table.shape)
    if len(table) % num_groups:
        raise CheckpointError(
            f'The checkpoint contradicts itself: {name!r} has {len(table)} rows, which '
            f'{num_groups} groups of encoder heads cannot share; get the file again.'
        )
    return table.unflatten(0, (num_groups, -1))


def _with_all_blocks(
    state_dict: Mapping[str, Tensor], num_blocks: int
) -> dict[str, Tensor]:
    first = 'backbone.blocks.0.'
    block = re.compile(r'backbone\.blocks\.(\d+)\.')
    built = {match[1] for name in state_dict if (match := block.match(name))}
    state_dict = dict(state_dict)
    for name in [name for name in state_dict if name.startswith(first)]:
        like = state_dict[name]
        identity = '.norm' in name and name.endswith('.weight')
        for index in range(len(built), num_blocks):
            filled = torch.ones_like(like) if identity else torch.zeros_like(like)
            state_dict[name.replace(first, f'backbone.blocks.{index}.')] = filled
    return state_dict
