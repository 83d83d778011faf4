"""How far bfloat16 is from float32 where there are masks."""

from tests.test_precision import test_quality as quality
from tests.test_precision.batches import golden_batch


def test_detections_with_masks():
    quality.test_detections(golden_batch, 'masks')


def test_losses_and_gradients_with_masks():
    quality.test_losses_and_gradients(golden_batch, 'masks')
