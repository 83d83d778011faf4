import pytest

from tests.gpu.test_precision import check_float32_parts
from tests.test_segmentation.test_float32_parts import DETECTION_PARTS, MASK_PARTS


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_the_named_parts_compute_in_float32(dtype, device):
    check_float32_parts('masks', DETECTION_PARTS | MASK_PARTS, dtype, device)
