"""How far bfloat16 is from float32 where there are keypoints."""

from tests.test_precision import test_quality as quality
from tests.test_precision.batches import golden_batch


def test_detections_with_keypoints():
    quality.test_detections(golden_batch, 'keypoints')


def test_losses_and_gradients_with_keypoints():
    quality.test_losses_and_gradients(golden_batch, 'keypoints')
