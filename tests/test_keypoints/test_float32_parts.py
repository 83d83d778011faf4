"""Parts of keypoints that compute in float32, and that nothing else changes that."""

import pytest

from tests.test_precision import test_float32_parts as precision
from tests.test_precision.test_float32_parts import (  # noqa: F401
    DETECTION_PARTS,
    low_batch,
    test_all_gradients_are_float32_and_present,
    test_every_named_part_computes_in_float32,
    test_losses_and_outputs_are_float32,
    test_sampling_locations_are_computed_in_float32,
)

POINT_PARTS = {
    'keypoints/point_losses.py',
    'keypoints/point_results.py',
}


@pytest.fixture
def parts():
    return DETECTION_PARTS | POINT_PARTS


@pytest.fixture
def case():
    return low_batch('keypoints')


@pytest.mark.parametrize('part', sorted(POINT_PARTS))
def test_one_low_operation_in_a_part_is_found(part):
    precision.test_one_low_operation_in_a_part_is_found(part)
