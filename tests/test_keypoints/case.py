"""A model with keypoints that is small enough to train in a test."""

from tests import parity


def tiny_config(schema=(4, 0, 2), num_logits=5, **changes):
    """Config of the model, by official names of sizes."""
    sizes = dict(
        encoder='dinov2_windowed_small',
        vit=dict(hidden_size=32, num_attention_heads=2),
        num_queries=10,
        num_select=10,
        group_detr=3,
        patch_size=8,
        num_windows=2,
        out_feature_indexes=[1, 2],
        positional_encoding_size=8,
        hidden_dim=32,
        projector_scale=['P4'],
        dec_layers=2,
        sa_nheads=2,
        ca_nheads=2,
        dec_n_points=2,
        dim_feedforward=64,
        num_keypoints_per_class=list(schema),
    )
    sizes.update(changes)
    return parity.model_config(sizes, num_logits)


def batch(*sizes, counts, schema=(4, 0, 2), num_classes=None, seed=1):
    """Images and samples whose objects have points.

    Args:
        *sizes: (height, width) of each image.
        counts: objects of each image.
        schema: points of each class.
        num_classes: labels lie below, those of the schema if left out.
        seed: of the numbers.
    """
    size = tuple(map(max, zip(*sizes, strict=True)))
    classes = num_classes or len(schema)
    return parity.rule_batch(
        sizes, size, counts, num_classes=classes, schema=schema, seed=seed
    )
