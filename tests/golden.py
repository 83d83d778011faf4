"""Official numbers of small models, which the project carries itself.

``tools/make_golden.py`` makes them with the official package. Weights and inputs
come from :mod:`tests.golden_rule`. Needs numpy only.
"""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'data'

_SMALL = dict(
    encoder='dinov2_windowed_small',
    out_feature_indexes=[2, 4],
    patch_size=8,
    num_windows=2,
    positional_encoding_size=8,
    projector_scale=['P4'],
    hidden_dim=32,
    dec_layers=2,
    sa_nheads=4,
    ca_nheads=4,
    dec_n_points=2,
    dim_feedforward=64,
    num_classes=6,
    num_queries=12,
    num_select=20,
    group_detr=3,
)

TASKS = {'masks', 'keypoints'}
"""Cases of wings, whose tests run them."""

CASES = {
    # Windowed and global blocks, one level, the position table as it is.
    'windows': dict(
        model=dict(
            _SMALL,
            vit=dict(hidden_size=48, num_attention_heads=3, num_hidden_layers=4),
        ),
        seed=4,
        batch_size=(64, 64),
        sizes=[(64, 64), (64, 64), (64, 64)],
        counts=[3, 0, 2],
    ),
    # Two levels, padding, an input that is not square, a resized position table,
    # register tokens, a block that no feature map needs.
    'levels': dict(
        model=dict(
            _SMALL,
            encoder='dinov2_registers_windowed_small',
            out_feature_indexes=[1, 3],
            positional_encoding_size=6,
            projector_scale=['P3', 'P5'],
            dec_n_points=4,
            vit=dict(
                hidden_size=32,
                num_attention_heads=2,
                num_hidden_layers=4,
                num_register_tokens=2,
            ),
        ),
        seed=2,
        batch_size=(64, 96),
        sizes=[(64, 80), (48, 96)],
        counts=[2, 4],
    ),
    # Fewer tokens than queries, no windows, more decoder layers.
    'few_tokens': dict(
        model=dict(
            _SMALL,
            num_windows=1,
            positional_encoding_size=5,
            dec_layers=3,
            num_queries=20,
            vit=dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=4),
        ),
        seed=3,
        batch_size=(32, 32),
        sizes=[(32, 32), (32, 32)],
        counts=[2, 0],
    ),
    # Instance segmentation on an input that is not square.
    'masks': dict(
        config_class='RFDETRSegNanoConfig',
        model=dict(
            _SMALL,
            segmentation_head=True,
            dec_layers=3,
            vit=dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=4),
        ),
        criterion=dict(mask_ce_loss_coef=5.0, mask_dice_loss_coef=5.0),
        seed=5,
        batch_size=(48, 80),
        sizes=[(48, 80), (48, 80), (48, 80)],
        counts=[3, 0, 2],
    ),
    # Keypoints of two classes of three, on an input that is not square, with padding.
    'keypoints': dict(
        config_class='RFDETRKeypointPreviewConfig',
        model=dict(
            _SMALL,
            num_keypoints_per_class=[3, 0, 2],
            num_classes=3,
            vit=dict(hidden_size=32, num_attention_heads=2, num_hidden_layers=4),
        ),
        seed=6,
        batch_size=(48, 80),
        sizes=[(48, 80), (48, 64), (48, 80)],
        counts=[3, 0, 2],
    ),
}
"""Cases as :mod:`tests.official` takes them; ``counts`` are for training only."""

KEPT = {'train/grad/': 12}
MOST = 80
"""Numbers that are kept of an array, of a gradient fewer."""


def evaluation(case):
    """The case without objects."""
    return {key: value for key, value in case.items() if key != 'counts'}


def thin(name, value):
    """The part of an array that is kept: each n-th number, in C order."""
    most = next((n for start, n in KEPT.items() if name.startswith(start)), MOST)
    # An even step would see the same few channels again and again.
    step = -(-value.size // most) | 1
    return value.reshape(-1)[::step]


def save(case, versions, stages):
    """Write the stages of a case, thinned out, to one small file.

    Args:
        case: name.
        versions: of the packages that made the numbers.
        stages: names to arrays.
    """
    kept = {name: thin(name, value) for name, value in stages.items()}
    about = dict(
        versions=versions,
        shapes={name: value.shape for name, value in stages.items()},
        counts=[value.size for value in kept.values()],
    )
    np.savez_compressed(
        FOLDER / f'golden_{case}.npz',
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        values=np.concatenate(list(kept.values())).astype(np.float32),
    )


def load(case):
    """Read a case: names to kept numbers, and names to shapes of the whole arrays."""
    with np.load(FOLDER / f'golden_{case}.npz') as archive:
        about = json.loads(archive['about'].tobytes())
        values = archive['values']
    parts = np.split(values, np.cumsum(about['counts'])[:-1])
    shapes = {name: tuple(shape) for name, shape in about['shapes'].items()}
    return dict(zip(shapes, parts, strict=True)), shapes
