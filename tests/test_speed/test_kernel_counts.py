"""What is switched on leaves less to launch for a GPU."""

import re

import pytest
import torch
from torch._inductor.utils import fresh_cache, run_and_get_code

from mmdet_rfdetr.speed import packed_linear
from tests.kernels import Kernels
from tests.test_kernel_counts import BFLOAT16, inputs, launched_in_detecting, nano

PRECISIONS = pytest.mark.parametrize(
    'precision', (None, BFLOAT16), ids=('float32', 'bfloat16')
)


@PRECISIONS
def test_a_deployed_model_launches_less(precision, monkeypatch):
    plain = launched_in_detecting(nano(precision).eval())
    deployed = nano(precision).switch_to_deploy()
    packed = launched_in_detecting(deployed)
    monkeypatch.setattr(packed_linear, 'packable', lambda dtype: False)
    unpacked = launched_in_detecting(deployed)
    assert unpacked < plain
    assert packed <= unpacked


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.torch.jit.script_method. is deprecated')
@PRECISIONS
def test_a_compiled_model_launches_less(precision):
    """Operators, and the functions that Inductor fused for a CPU."""
    torch._dynamo.reset()
    model = nano(precision).switch_to_deploy()
    deployed = launched_in_detecting(model)
    model.compile()
    images, samples = inputs()
    with torch.no_grad(), fresh_cache():
        _, sources = run_and_get_code(model, images, samples, mode='predict')
        with Kernels() as kernels:
            model(images, samples, mode='predict')
    fused = re.findall(r'^ +cpp_fused\w*\(', '\n'.join(sources), re.MULTILINE)
    assert len(sources) == len(model.compilation.parts)
    assert not kernels.reads
    assert kernels.total + len(fused) < deployed
