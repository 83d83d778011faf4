"""Seg Nano learns eight real images by heart, masks included."""

import pytest

from tests.by_heart import by_heart_config, few_images, train_to_score
from tests.fixtures import needs_data


@pytest.mark.slow
@needs_data
def test_seg_nano_learns_eight_images(tmp_path):
    """The images have no small objects.

    At this size a fiftieth of the image is six cells of a mask wide.
    """
    cfg = by_heart_config(
        tmp_path,
        'rfdetr-seg_nano_coco.py',
        few_images(tmp_path, 'instances_seg_train2017.json', least=0.02),
        image_size=168,
        queries=30,
        groups=3,
        epochs=80,
        warmup=5,
        batch_size=2,
    )
    assert train_to_score(cfg, 'segm_mAP') >= 0.7
