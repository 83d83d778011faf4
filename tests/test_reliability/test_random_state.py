"""Everything that draws random numbers goes on where it was."""

import random

import numpy as np
import pytest
import torch

from mmdet_rfdetr.checkpoints import load_checkpoint_file, save_checkpoint_file
from mmdet_rfdetr.reliability.random_state import (
    capture_random_state,
    restore_random_state,
    seeded,
)


def draw():
    """Numbers of each kind; of the normal ones two are made and one is kept."""
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(1).item(),
        torch.randn(1).item(),
    )


@pytest.fixture
def cuda(monkeypatch):
    """A generator of a GPU that is not there."""
    device = dict(state=torch.arange(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda: device['state'].clone())
    monkeypatch.setattr(
        torch.cuda, 'set_rng_state', lambda state: device.update(state=state)
    )
    return device


def through_a_file(state, folder):
    weights = {'weight': torch.ones(1)}
    save_checkpoint_file(dict(state_dict=weights, state=state), folder / 'state.pth')
    return load_checkpoint_file(folder / 'state.pth')['state']


def test_numbers_go_on_after_a_file(tmp_path):
    draw()
    state = through_a_file(capture_random_state(), tmp_path)
    expected = draw(), draw()
    draw()
    restore_random_state(state)
    assert (draw(), draw()) == expected


def test_the_state_of_a_gpu_is_among_them(cuda, tmp_path):
    before = cuda['state'].clone()
    state = through_a_file(capture_random_state(), tmp_path)
    cuda['state'] = before + 1
    restore_random_state(state)
    assert torch.equal(cuda['state'], before)
    assert cuda['state'].device.type == 'cpu'  # which is where torch wants it


def test_the_state_of_a_gpu_is_left_where_there_is_none(cuda, monkeypatch):
    state = capture_random_state()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cuda['state'] = None
    restore_random_state(state)
    assert cuda['state'] is None


def test_a_run_that_never_saw_a_gpu_goes_on_with_one(monkeypatch):
    state = capture_random_state()
    state.pop('cuda', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'set_rng_state', None)
    restore_random_state(state)


def test_a_seed_holds_within_and_leaves_no_trace():
    state = capture_random_state()
    expected = draw()
    restore_random_state(state)
    with seeded((3, 1, 4)):
        first = draw()
    assert draw() == expected
    with seeded((3, 1, 4)):
        assert draw() == first
    with seeded((3, 1, 5)):
        assert not set(draw()) & set(first)
