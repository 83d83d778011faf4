"""What compiling and CUDA graphs may not change, on a GPU."""

import pytest
import torch
from torch._dynamo.utils import counters

from ..test_compiled import (
    PARTS,
    assert_close,
    batch,
    compiled_graphs,
    detect,
    model,
    step,
)
from .conftest import COMPILING

pytestmark = [pytest.mark.filterwarnings(line) for line in COMPILING]
MODES = (None, 'reduce-overhead')
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    torch._dynamo.reset()
    counters.clear()


def on(device, data):
    images, samples = data
    return images.to(device), [sample.to(device) for sample in samples]


@pytest.mark.parametrize('mode', MODES, ids=str)
def test_training(mode, device):
    """Graphs are recorded in the second step and used from the third on."""
    plain, compiled = (
        model(compile=compile).to(device) for compile in (None, dict(mode=mode))
    )
    for _ in range(4):
        data = on(device, batch())
        assert_close(step(compiled, *data), step(plain, *data), TOLERANCE)
    assert compiled_graphs() == len(PARTS)


@pytest.mark.parametrize('mode', MODES, ids=str)
def test_gradients_of_two_batches_add_up(mode, device):
    compiled = model(compile=dict(mode=mode)).to(device)
    data = on(device, batch())
    for _ in range(3):
        once = step(compiled, *data)
    for _ in range(3):
        step(compiled, *data)
        sum(compiled(*data, mode='loss').values()).backward()
        twice = {
            f'grad/{name}': parameter.grad / 2
            for name, parameter in compiled.named_parameters()
            if parameter.grad is not None
        }
        gradients = {key: once[key] for key in once if key.startswith('grad/')}
        assert_close(twice, gradients, TOLERANCE)


@pytest.mark.parametrize('mode', MODES, ids=str)
@pytest.mark.parametrize('deployed', (False, True))
def test_detections_outlive_the_next_step(mode, deployed, device):
    plain = model().to(device)
    compiled = model(compile=dict(mode=mode)).to(device)
    if deployed:
        compiled.eval().switch_to_deploy()
    inputs = [on(device, batch(count=count)) for count in (2, 1)]
    for _ in range(3):
        results = [detect(compiled, *data) for data in inputs]
    for result, data in zip(results, inputs, strict=True):
        assert_close(result, detect(plain, *data), TOLERANCE)


def test_training_and_validation_in_turn(device):
    plain, compiled = (
        model(compile=compile).to(device)
        for compile in (None, dict(mode='reduce-overhead'))
    )
    data = on(device, batch())
    for _ in range(3):
        assert_close(step(compiled, *data), step(plain, *data), TOLERANCE)
        assert_close(detect(compiled, *data), detect(plain, *data), TOLERANCE)
