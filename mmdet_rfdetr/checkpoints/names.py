"""The official package's parameter names and this package's, in both directions.

Most entries only change their name. Three kinds change their shape: the query, key
and value layers of a ViT block are one packed layer here, the heads of all query
groups are stacked on a first axis, and so are the two query tables. Nothing is
lost: :func:`to_official` undoes :func:`from_official` tensor for tensor.

Names are those of the plain model, as the official files hold them under ``model``.
"""

import functools
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

PARTS = ('query', 'key', 'value')
"""What the packed layer of a ViT block holds, in this order."""

VIT = 'backbone.0.encoder.encoder.'
"""Prefix of the ViT's entries in an official file."""

_WRAP = 'backbone.0.encoder.base_model.model.'
"""Prefix of the encoder in official files with adapters."""

KEYPOINT_MASK = '_kp_active_mask'
"""Official buffer, empty for models without keypoints; there is no such entry here."""

# In a template # stands for a number, * for one word, ** for the rest of a name; both
# sides of a pair have these in the same order. @ is the member of several official
# entries that are one here: the part of a packed layer, or the group of a stack.
_VIT_RENAMES = (
    ('embeddings.patch_embeddings.projection.*', 'backbone.patch_embed.*'),
    ('embeddings.cls_token', 'backbone.cls_token'),
    ('embeddings.mask_token', 'backbone.mask_token'),
    ('embeddings.position_embeddings', 'backbone.pos_embed'),
    ('embeddings.register_tokens', 'backbone.register_tokens'),
    ('encoder.layer.#.norm#.*', 'backbone.blocks.#.norm#.*'),
    ('encoder.layer.#.attention.attention.@.*', 'backbone.blocks.#.attn.qkv.*'),
    ('encoder.layer.#.attention.output.dense.*', 'backbone.blocks.#.attn.proj.*'),
    ('encoder.layer.#.layer_scale#.lambda1', 'backbone.blocks.#.layer_scale#'),
    ('encoder.layer.#.mlp.fc#.*', 'backbone.blocks.#.mlp.fc#.*'),
    ('layernorm.*', 'backbone.norm.*'),
)
_SAMPLING = 'backbone.0.projector.stages_sampling.'
_STAGES = 'backbone.0.projector.stages.'
RENAMES = [
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
    ('transformer.enc_output.@.*', 'query_selection.fc.*'),
    ('transformer.enc_output_norm.@.*', 'query_selection.norm.*'),
    ('transformer.enc_out_class_embed.@.*', 'query_selection.fc_cls.*'),
    ('transformer.enc_out_bbox_embed.@.layers.#.*', 'query_selection.fc_reg.#.*'),
    ('refpoint_embed.weight', 'reference_embedding'),
    ('query_feat.weight', 'query_embedding'),
    ('class_embed.*', 'bbox_head.fc_cls.*'),
    ('bbox_embed.layers.#.*', 'bbox_head.fc_reg.#.*'),
    ('segmentation_head.**', 'mask_head.**'),
]
"""Official names and those here, of which the first pair that fits counts."""

_QUERY_TABLES = ('reference_embedding', 'query_embedding')
_PACKED = '.attn.qkv.'

# Entries that every model has, whatever its backbone, and no other network has under
# these names; and those of the ViT, which the official package knows no other than.
_OWN_MARKERS = (*_QUERY_TABLES, 'bbox_head.fc_cls.weight', 'decoder.norm.weight')
_VIT_MARKERS = ('backbone.pos_embed', 'backbone.patch_embed.weight')


@functools.cache
def _pattern(template: str) -> re.Pattern:
    pattern = re.escape(template).replace(r'\#', r'(\d+)').replace(r'\*\*', '(.+)')
    pattern = pattern.replace('@', rf'(?P<member>{"|".join(PARTS)}|\d+)')
    return re.compile(pattern.replace(r'\*', r'([a-z]\w*)'))


def _rename(name: str, *, official: bool) -> tuple[str, str | None]:
    """Give a name, official or not, its counterpart; one without a counterpart stays.

    Returns:
        The name, where an official one still has @ for the member, and the member that
        an official name says.
    """
    for template, target in RENAMES:
        if not official:
            template, target = target, template
        pattern = _pattern(template)
        if (match := pattern.fullmatch(name)) is not None:
            place = pattern.groupindex.get('member')
            for index, field in enumerate(match.groups(), 1):
                if index != place:
                    target = re.sub(r'#|\*\*|\*', field, target, count=1)
            return target, place and match[place]
    return name, None


def unwrap(name: str) -> str:
    """The name that an official entry has where the model has no adapters."""
    if name.startswith(_WRAP):
        name = 'backbone.0.encoder.' + name.removeprefix(_WRAP)
    return name.replace('.base_layer.', '.')


def is_official(names: Iterable[str]) -> bool:
    """Tell whether names are those of an official RF-DETR model.

    Args:
        names: Keys of a state dict.
    """
    markers = (_rename(name, official=False)[0] for name in _OWN_MARKERS + _VIT_MARKERS)
    return set(map(unwrap, names)).issuperset(markers)


def is_own(names: Iterable[str]) -> bool:
    """Tell whether names are those of an RF-DETR model of this package.

    Args:
        names: Keys of a state dict.
    """
    return set(names).issuperset(_OWN_MARKERS)


def count_members(names: Iterable[str], prefix: str) -> int:
    """Count the members of a module list.

    Args:
        names: Keys of a state dict.
        prefix: Name of the list, with the dot at its end.
    """
    pattern = re.compile(re.escape(prefix) + r'(\d+)\.')
    return len({match[1] for name in names if (match := pattern.match(name))})


def from_official(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give official entries this package's names and layout.

    Entries without a counterpart keep their name, so that a caller can list them.

    Args:
        state_dict: Official names to tensors.

    Returns:
        Own names to tensors; renamed ones share their storage with the input.

    Raises:
        CheckpointError: a group of entries that belong together is incomplete.
    """
    own = OrderedDict()
    joined = defaultdict(dict)
    for name, value in state_dict.items():
        if name == KEYPOINT_MASK and not value.numel():
            continue
        target, member = _rename(name, official=True)
        if member is None:
            own[target] = value
        else:
            joined[target][member] = value
    num_groups = 1
    for target, members in joined.items():
        if _PACKED in target:
            own[target] = torch.cat(_in_order(target, members, PARTS))
        else:
            num_groups = max(num_groups, len(members))
            groups = map(str, range(len(members)))
            own[target] = torch.stack(_in_order(target, members, groups))
    for name in _QUERY_TABLES:
        if name in own:  # (G * Q, D) to (G, Q, D)
            own[name] = own[name].unflatten(0, (num_groups, -1))
    return own


def to_official(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Give entries of this package the official names and layout.

    Args:
        state_dict: Own names to tensors.

    Returns:
        Official names to tensors, which share no storage with each other.
    """
    official = OrderedDict()
    for name, value in state_dict.items():
        target, _ = _rename(name, official=False)
        if '@' not in target:
            official[target] = value.flatten(0, 1) if name in _QUERY_TABLES else value
            continue
        parts = value.chunk(3) if _PACKED in name else value
        members = PARTS if _PACKED in name else map(str, range(len(value)))
        for member, part in zip(members, parts, strict=True):
            official[target.replace('@', member)] = part
    official.setdefault(KEYPOINT_MASK, torch.zeros(0, 0, dtype=torch.bool))
    # Slices of one storage would be written whole, each of them.
    return OrderedDict((name, value.clone()) for name, value in official.items())


def _in_order(name: str, members: Mapping, wanted: Iterable[str]) -> list[Tensor]:
    """Take the members that the entry ``name`` is joined from."""
    wanted = list(wanted)
    missing = [member for member in wanted if member not in members]
    if missing:
        raise CheckpointError(
            f'The checkpoint is incomplete: of the entries that make up {name!r} it '
            f'lacks {", ".join(missing)}; get the file again.'
        )
    return [members[member] for member in wanted]
