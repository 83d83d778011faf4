"""Names of the official keypoint parameters, for the converter and the loader."""

from ..checkpoints.names import RENAMES

_HEAD = 'keypoint_head.'
_DECODER = 'transformer.decoder.'
_LAYER = (_DECODER + 'layers.#.', _HEAD + 'decoder.layers.#.')
_LAYERS = (
    ('instance_kp_layer_scale', 'instance_scale'),
    ('kp_inst_self_attn.**', 'self_attn.**'),
    ('kp_inst_norm.*', 'instance_norm.*'),
    ('kp_norm.*', 'norm1.*'),
    ('kp_cross_attn.**', 'cross_attn.**'),
    ('kp_cross_attn_norm.*', 'norm2.*'),
    ('kp_linear1.*', 'linear1.*'),
    ('kp_linear3.*', 'linear2.*'),
    ('kp_norm5.*', 'norm3.*'),
)
_INITIALISERS = (
    ('transformer.keypoint_query_initializer.', _HEAD + 'initialiser.'),
    ('transformer.keypoint_query_initializer_enc.', _HEAD + 'encoder_initialiser.'),
)
_INITIALISER = (
    ('queries', 'queries'),
    ('adaLN_modulation.#.*', 'modulation.#.*'),
    ('out_proj.*', 'out_proj.*'),
)
_PROJECTOR = 'backbone.0.projector.'

# Before those of the layers of queries, which take any name.
RENAMES[:0] = [
    ('_kp_active_mask', _HEAD + 'active'),
    (_DECODER + 'keypoint_class_mask', _HEAD + 'decoder.class_mask'),
    (_DECODER + 'keypoint_pos_embed', _HEAD + 'decoder.pos_embed'),
    *((_LAYER[0] + official, _LAYER[1] + own) for official, own in _LAYERS),
    *(
        (official + name, own + own_name)
        for official, own in _INITIALISERS
        for name, own_name in _INITIALISER
    ),
    ('keypoint_embed.layers.#.*', _HEAD + 'embed.#.*'),
    (
        'transformer.enc_out_keypoint_embed.@.layers.#.*',
        _HEAD + 'encoder_embed.#.*',
    ),
    *(
        (official.replace('.projector.', '.cross_attn_projector.'), _HEAD + own)
        for official, own in RENAMES
        if official.startswith(_PROJECTOR)
    ),
]
