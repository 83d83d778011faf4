"""Parts of segmentation that compute in float32, and that nothing else changes that."""

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

MASK_PARTS = {
    'segmentation/mask_costs.py',
    'segmentation/point_loss.py',
    'segmentation/point_sampling.py:at_points',
    'segmentation/point_sampling.py:sample',
    'segmentation/mask_results.py',
}


@pytest.fixture
def parts():
    return DETECTION_PARTS | MASK_PARTS


@pytest.fixture
def case():
    return low_batch('masks')


@pytest.mark.parametrize('part', sorted(MASK_PARTS))
def test_one_low_operation_in_a_part_is_found(part):
    precision.test_one_low_operation_in_a_part_is_found(part)
