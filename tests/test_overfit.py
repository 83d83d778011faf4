"""Nano learns eight real images by heart.

This takes data, labels, losses, boxes and evaluation together: a mistake in any of
them keeps the mAP low.
"""

import pytest

from .by_heart import by_heart_config, few_images, train_to_score
from .fixtures import needs_data


@pytest.mark.slow
@needs_data
def test_nano_learns_eight_images(tmp_path):
    cfg = by_heart_config(
        tmp_path,
        'rfdetr_nano_coco.py',
        few_images(tmp_path),
        image_size=256,
        queries=100,
        groups=4,
        epochs=200,
        warmup=10,
        batch_size=4,
    )
    assert train_to_score(cfg, 'bbox_mAP') >= 0.93
