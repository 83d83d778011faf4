import torch

from mmdet_rfdetr.models.memory import Memory
from tests import parity


def test_padding_is_read_from_the_samples():
    samples = parity.make_samples([(64, 48), (48, 64)], (64, 64))
    memory = Memory.flatten([torch.zeros(2, 5, 8, 8), torch.zeros(2, 5, 4, 4)], samples)
    assert memory.tokens.shape == (2, 80, 5)
    mask = memory.padding[:, :64].view(2, 8, 8)
    assert mask[0].equal(torch.arange(8).ge(6).expand(8, 8))
    assert mask[1].equal(mask[0].T)
    assert memory.valid_sizes.tolist() == [[[8, 6], [4, 3]], [[6, 8], [3, 4]]]
    ratios = [[[0.75, 1.0]] * 2, [[1.0, 0.75]] * 2]
    assert memory.valid_ratios.tolist() == ratios


def test_no_padding_needs_no_mask():
    level = torch.randn(2, 5, 4, 6)
    for samples in (parity.make_samples([(32, 48)] * 2, (32, 48)), None):
        memory = Memory.flatten([level], samples)
        assert memory.tokens[1, 7].equal(level[1, :, 1, 1])
        assert memory.padding is memory.valid_sizes is memory.valid_ratios is None
