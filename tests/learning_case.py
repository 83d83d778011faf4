"""What both programs of the learning comparison are given; needs numpy only.

A case is a model of toy size with all 13 groups, and pictures that can be learned:
boxes in the colour of their class on dim noise. ``SETTINGS`` are the official training
arguments; names of sizes are the official ones.
"""

import numpy as np

from tests import golden_rule

SEED = 7
NUM_CLASSES = 5
MODEL = dict(
    encoder='dinov2_windowed_small',
    out_feature_indexes=[2, 4],
    patch_size=8,
    num_windows=2,
    positional_encoding_size=12,
    resolution=96,
    projector_scale=['P4'],
    hidden_dim=64,
    dec_layers=2,
    sa_nheads=4,
    ca_nheads=4,
    dec_n_points=2,
    dim_feedforward=128,
    # The official head has one output more.
    num_classes=NUM_CLASSES - 1,
    # The smallest size has 16 tokens: each query gets one.
    num_queries=12,
    num_select=12,
    group_detr=13,
    vit=dict(hidden_size=96, num_attention_heads=3, num_hidden_layers=4),
)
LARGEST = 176
"""Side of the pictures: the largest of the sizes around the resolution."""
BATCHES = 10
"""In an epoch."""
SETTINGS = dict(
    epochs=10,
    lr_scheduler='cosine',
    warmup_epochs=1.0,
    # Ten times the defaults: nothing is pretrained, and 100 steps shall show something.
    lr=1e-3,
    lr_encoder=1.5e-3,
)
COUNTS = (3, 1, 0, 4)
"""Objects of the four pictures of a batch."""
STEPS = SETTINGS['epochs'] * BATCHES


def batch(index):
    """Batch ``index`` of an epoch.

    Returns:
        Tuple of pictures (4, 3, LARGEST, LARGEST) float32, normalised, and for each of
        them a dict of ``labels`` and relative cxcywh ``boxes``.
    """
    seed = 1000 * SEED + index
    objects = golden_rule.objects(COUNTS, NUM_CLASSES, seed)
    size = (LARGEST, LARGEST)
    pictures, _ = golden_rule.images([size] * len(COUNTS), size, seed)
    pictures *= 0.2
    colours = golden_rule.numbers('colours', SEED, (NUM_CLASSES, 3)) * 2
    for picture, found in zip(pictures, objects, strict=True):
        for label, (x, y, width, height) in zip(
            found['labels'], found['boxes'] * LARGEST, strict=True
        ):
            left, right = round(float(x - width / 2)), round(float(x + width / 2))
            top, bottom = round(float(y - height / 2)), round(float(y + height / 2))
            picture[:, top:bottom, left:right] += colours[label, :, None, None]
    return pictures.astype(np.float32), objects
