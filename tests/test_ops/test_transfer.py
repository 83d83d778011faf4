import numpy as np
import pytest
import torch

from mmdet_rfdetr.ops.transfer import download, upload


@pytest.mark.parametrize('values', ([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]])))
def test_numbers_of_the_host_become_a_tensor(values):
    assert torch.equal(upload(values, 'cpu'), torch.tensor([[1, 2], [3, 4]]))
    assert upload(values, torch.device('cpu'), torch.float32).dtype == torch.float32


def test_a_tensor_comes_back():
    values = torch.arange(3)
    assert torch.equal(download(values), values)
