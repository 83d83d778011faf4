"""Official state dicts of any size, written down from their description.

Independent of the package, so that a wrong name there is not a wrong name here too.
"""

import itertools

import torch

VIT = 'backbone.0.encoder.encoder.'
PROJECTOR = 'backbone.0.projector.'


def pair(name, *shape):
    """Weight and bias of a linear layer, convolution or norm."""
    return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def official_shapes(
    *,
    vit_width=8,
    patch_size=4,
    grid=3,
    num_blocks=12,
    num_maps=4,
    width=16,
    num_layers=2,
    feedforward=32,
    samples=8,
    levels=('P4',),
    num_groups=3,
    num_queries=5,
    num_rows=7,
    num_mask_blocks=0,
):
    """Names to shapes; ``samples`` is cross-attention heads x points of one level."""
    c, d = vit_width, width
    shapes = {
        VIT + 'embeddings.cls_token': (1, 1, c),
        VIT + 'embeddings.mask_token': (1, c),
        VIT + 'embeddings.position_embeddings': (1, 1 + grid**2, c),
        **pair(
            VIT + 'embeddings.patch_embeddings.projection', c, 3, patch_size, patch_size
        ),
        **pair(VIT + 'layernorm', c),
        **pair('class_embed', num_rows, d),
        'refpoint_embed.weight': (num_groups * num_queries, 4),
        'query_feat.weight': (num_groups * num_queries, d),
        '_kp_active_mask': (0, 0),
        **pair('transformer.decoder.norm', d),
        **pair('transformer.decoder.ref_point_head.layers.0', d, 2 * d),
        **pair('transformer.decoder.ref_point_head.layers.1', d, d),
    }
    for block in range(num_blocks):
        layer = f'{VIT}encoder.layer.{block}.'
        for part in ('query', 'key', 'value'):
            shapes |= pair(f'{layer}attention.attention.{part}', c, c)
        shapes |= pair(f'{layer}attention.output.dense', c, c)
        for norm in (1, 2):
            shapes |= pair(f'{layer}norm{norm}', c)
            shapes[f'{layer}layer_scale{norm}.lambda1'] = (c,)
        shapes |= pair(f'{layer}mlp.fc1', 4 * c, c) | pair(f'{layer}mlp.fc2', c, 4 * c)
    for stage, level in enumerate(levels):
        branch_width = c // 2 if level == 'P3' else c
        for j in range(num_maps):
            branch = f'{PROJECTOR}stages_sampling.{stage}.{j}.0'
            if level == 'P3':
                shapes[f'{branch}.weight'] = (c, c // 2, 2, 2)
                shapes[f'{branch}.bias'] = (c // 2,)
            elif level == 'P5':
                shapes[f'{branch}.conv.weight'] = (c, c, 3, 3)
                shapes |= pair(f'{branch}.bn', c)
        c2f = f'{PROJECTOR}stages.{stage}.0.'
        shapes[f'{c2f}cv1.conv.weight'] = (d, num_maps * branch_width, 1, 1)
        shapes[f'{c2f}cv2.conv.weight'] = (d, 5 * d // 2, 1, 1)
        shapes |= pair(f'{c2f}cv1.bn', d) | pair(f'{c2f}cv2.bn', d)
        for m, cv in itertools.product(range(3), ('cv1', 'cv2')):
            shapes[f'{c2f}m.{m}.{cv}.conv.weight'] = (d // 2, d // 2, 3, 3)
            shapes |= pair(f'{c2f}m.{m}.{cv}.bn', d // 2)
        shapes |= pair(f'{PROJECTOR}stages.{stage}.1', d)
    for index in range(num_layers):
        layer = f'transformer.decoder.layers.{index}.'
        total = samples * len(levels)
        shapes |= {
            f'{layer}self_attn.in_proj_weight': (3 * d, d),
            f'{layer}self_attn.in_proj_bias': (3 * d,),
            **pair(f'{layer}self_attn.out_proj', d, d),
            **pair(f'{layer}cross_attn.sampling_offsets', 2 * total, d),
            **pair(f'{layer}cross_attn.attention_weights', total, d),
            **pair(f'{layer}cross_attn.value_proj', d, d),
            **pair(f'{layer}cross_attn.output_proj', d, d),
            **pair(f'{layer}linear1', feedforward, d),
            **pair(f'{layer}linear2', d, feedforward),
        }
        for norm in (1, 2, 3):
            shapes |= pair(f'{layer}norm{norm}', d)
    shapes |= mlp('bbox_embed', d)
    for group in range(num_groups):
        shapes |= pair(f'transformer.enc_output.{group}', d, d)
        shapes |= pair(f'transformer.enc_output_norm.{group}', d)
        shapes |= pair(f'transformer.enc_out_class_embed.{group}', num_rows, d)
        shapes |= mlp(f'transformer.enc_out_bbox_embed.{group}', d)
    if num_mask_blocks:
        shapes |= mask_head(d, num_mask_blocks)
    return shapes


def mlp(name, d):
    return {
        **pair(f'{name}.layers.0', d, d),
        **pair(f'{name}.layers.1', d, d),
        **pair(f'{name}.layers.2', 4, d),
    }


def mask_head(d, num_blocks):
    head = 'segmentation_head.'
    shapes = {
        f'{head}bias': (1,),
        **pair(f'{head}spatial_features_proj', d, d, 1, 1),
        **pair(f'{head}query_features_proj', d, d),
        **pair(f'{head}query_features_block.norm_in', d),
        **pair(f'{head}query_features_block.layers.0', 4 * d, d),
        **pair(f'{head}query_features_block.layers.2', d, 4 * d),
    }
    for block in range(num_blocks):
        shapes |= pair(f'{head}blocks.{block}.dwconv', d, 1, 3, 3)
        shapes |= pair(f'{head}blocks.{block}.norm', d)
        shapes |= pair(f'{head}blocks.{block}.pwconv1', d, d)
    return shapes


_SMALL = dict(vit_width=384, patch_size=16, width=256, feedforward=2048, samples=32)
_LARGE = dict(_SMALL, vit_width=768, num_groups=13, num_queries=300, num_rows=91)
_DETECTION = dict(_SMALL, num_groups=13, num_queries=300, num_rows=91)
_MASKS = dict(_DETECTION, patch_size=12)

VARIANTS = {
    'nano': dict(_DETECTION, grid=24, num_layers=2),
    'small': dict(_DETECTION, grid=32, num_layers=3),
    'medium': dict(_DETECTION, grid=36, num_layers=4),
    'base': dict(_DETECTION, grid=37, num_layers=3, patch_size=14),
    'large': dict(_DETECTION, grid=44, num_layers=4),
    'large-deprecated': dict(
        _LARGE,
        grid=37,
        num_layers=3,
        patch_size=14,
        width=384,
        levels=('P3', 'P5'),
        samples=96,
    ),
    'xlarge': dict(
        _LARGE, grid=35, num_layers=5, patch_size=20, width=512, samples=128
    ),
    '2xlarge': dict(
        _LARGE, grid=44, num_layers=5, patch_size=20, width=512, samples=128
    ),
    'seg-preview': dict(
        _MASKS, grid=36, num_layers=4, num_mask_blocks=4, num_queries=200
    ),
    'seg-nano': dict(_MASKS, grid=26, num_layers=4, num_mask_blocks=4, num_queries=100),
    'seg-small': dict(
        _MASKS, grid=32, num_layers=4, num_mask_blocks=4, num_queries=100
    ),
    'seg-medium': dict(
        _MASKS, grid=36, num_layers=5, num_mask_blocks=5, num_queries=200
    ),
    'seg-large': dict(
        _MASKS, grid=42, num_layers=5, num_mask_blocks=5, num_queries=200
    ),
    'seg-xlarge': dict(_MASKS, grid=52, num_layers=6, num_mask_blocks=6),
    'seg-2xlarge': dict(_MASKS, grid=64, num_layers=6, num_mask_blocks=6),
}
"""The sizes of all fifteen published detection and segmentation models."""


def official_state(seed=0, **sizes):
    """A state dict of these sizes, every entry with other random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.zeros(shape, dtype=torch.bool)
        if name == '_kp_active_mask'
        else torch.randn(shape, generator=generator)
        for name, shape in official_shapes(**sizes).items()
    }


def official_sizes(**sizes):
    """The same without numbers, for what looks at names and shapes only."""
    return {
        name: torch.empty(
            shape,
            device='meta',
            dtype=torch.bool if name == '_kp_active_mask' else torch.float32,
        )
        for name, shape in official_shapes(**sizes).items()
    }


def assert_same_entries(actual, expected):
    """Two state dicts hold the same tensors under the same names."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert torch.equal(actual[name], value), name
