"""Keypoints on a GPU: the official numbers, and the parts that stay in float32."""

import pytest

from tests.gpu.test_parity import test_small_eval_stages as eval_stages
from tests.gpu.test_precision import check_float32_parts
from tests.test_keypoints.test_float32_parts import DETECTION_PARTS, POINT_PARTS


def test_small_eval_stages(device):
    eval_stages('keypoints', device)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_the_named_parts_compute_in_float32(dtype, device):
    check_float32_parts('keypoints', DETECTION_PARTS | POINT_PARTS, dtype, device)
