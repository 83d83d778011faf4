"""A recorded detection is that of the same model without a recording."""

import copy

import pytest
import torch
from mmdet.registry import MODELS

from ... import parity
from ...gpu.test_precision import skip_without_bfloat16
from ...test_models.small import small_config as detection
from ...test_segmentation.case import tiny_config as segmentation
from .conftest import COMPILING

pytestmark = [pytest.mark.filterwarnings(line) for line in COMPILING]
CONFIGS = dict(detection=detection, segmentation=segmentation)
SIZES = (96, 64)


def pair(config, device, dtype='float32'):
    """A deployed model as it is, and one that is recorded."""
    precision = dict(device_type=device.type, dtype=dtype)
    model = MODELS.build(dict(config, precision=precision)).to(device)
    recorded = copy.deepcopy(model).switch_to_deploy(cuda_graphs=True)
    return model.switch_to_deploy(), recorded


def batch(device, size, count, seed, padded=False):
    sizes = [(size, size)] * (count - padded) + [(size // 2, size)] * padded
    images, samples = parity.rule_batch(sizes, (size, size), seed=seed)
    return images.to(device), [s.to(device) for s in samples]


@torch.no_grad()
def detect(model, images, samples):
    return [s.pred_instances for s in model(images, samples, mode='predict')]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = dict(ours.items()), dict(theirs.items())
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize('task', CONFIGS)
def test_batches_of_several_shapes_in_turn(task, dtype, device):
    skip_without_bfloat16(dtype, device)
    plain, recorded = pair(CONFIGS[task](), device, dtype)
    batches = [
        batch(device, size, count, seed)
        for seed in (1, 2)
        for size in SIZES
        for count in (1, 2)
    ]
    found = [detect(recorded, *data) for data in batches]
    assert len(recorded.graphs._graphs) == len(SIZES) * 2
    for result, data in zip(found, batches, strict=True):
        assert_same(result, detect(plain, *data))


def test_padded_batches_are_not_recorded(device):
    plain, recorded = pair(detection(), device)
    data = batch(device, 96, 2, seed=1, padded=True)
    assert_same(detect(recorded, *data), detect(plain, *data))
    assert not recorded.graphs._graphs


def test_compiled_parts_are_recorded(device):
    plain, recorded = pair(detection(), device)
    recorded.compile()
    data = batch(device, 96, 1, seed=1)
    for _ in range(2):
        found = detect(recorded, *data)
    expected = detect(plain, *data)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5)


def test_detecting_does_not_wait_for_the_gpu(device, no_waiting):
    """No result is read by the host, recorded or not."""
    for model in pair(detection(), device):
        images, samples = batch(device, 96, 1, seed=1)
        detect(model, images, samples)
        with no_waiting():
            detect(model, images, samples)


def test_a_copy_records_anew(device):
    _, recorded = pair(detection(), device)
    data = batch(device, 96, 1, seed=1)
    expected = detect(recorded, *data)
    twin = copy.deepcopy(recorded)
    assert not twin.graphs._graphs
    assert_same(detect(twin, *data), expected)
