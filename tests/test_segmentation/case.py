"""A model with masks that is small enough to train in a test."""

from tests import parity


def tiny_config(**changes):
    """Config of the model, by official names of sizes: 24 x 24 masks at 96 px."""
    sizes = dict(
        encoder='dinov2_windowed_small',
        vit=dict(hidden_size=32, num_attention_heads=2),
        num_queries=10,
        num_select=10,
        group_detr=3,
        patch_size=8,
        num_windows=2,
        out_feature_indexes=[1, 2],
        positional_encoding_size=12,
        hidden_dim=32,
        projector_scale=['P4'],
        dec_layers=2,
        sa_nheads=2,
        ca_nheads=2,
        dec_n_points=2,
        dim_feedforward=64,
        segmentation_head=True,
    )
    sizes.update(changes)
    return parity.model_config(sizes, 5)
