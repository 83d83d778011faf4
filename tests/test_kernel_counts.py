"""What a GPU would be asked to launch: how it grows, and that the host waits once.

Counts depend on the structure alone, so the model is Nano with narrow layers.
"""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

import mmdet_rfdetr
from tests import parity

from .kernels import Kernels

IMAGE = (384, 384)
BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')


def nano(precision=None, **model):
    config = Config.fromfile(mmdet_rfdetr.config('rfdetr_nano_coco.py')).model
    config.backbone.update(embed_dims=24, num_heads=3)
    config.neck.update(in_channels=[24] * 4, out_channels=32)
    config.decoder.update(feedforward_channels=32)
    config.pop('data_preprocessor')
    config.update(model, precision=precision)
    return MODELS.build(config)


def inputs(batch=1, objects=20):
    counts = [objects] * batch
    return parity.rule_batch([IMAGE] * batch, counts=counts, num_classes=80)


@torch.no_grad()
def launched_in_detecting(model, batch=1):
    """Count the kernels of a detection, the constants of its size being made."""
    images, samples = inputs(batch)
    model(images, samples, mode='predict')
    with Kernels() as kernels:
        model(images, samples, mode='predict')
    assert not kernels.reads
    return kernels.total


def test_detecting_in_more_images_launches_no_more():
    model = nano().eval()
    assert launched_in_detecting(model, 4) == launched_in_detecting(model, 2)


def launched_in_criterion(monkeypatch, batch=2, objects=20, **model):
    """Count the kernels of matching and losses."""
    copies, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, 'cpu', lambda self: copies.append(self.shape) or cpu(self)
    )
    # The CPU computes costs in pieces that a GPU does not need.
    monkeypatch.setattr('mmdet_rfdetr.matching.costs.CPU_BLOCK', 2**40)
    model = nano(BFLOAT16, **model).train()
    images, samples = inputs(batch, objects)
    kernels = Kernels()
    criterion = model.bbox_head.loss

    def counted(*arguments, **options):
        with kernels:
            return criterion(*arguments, **options)

    monkeypatch.setattr(model.bbox_head, 'loss', counted)
    model(images, samples, mode='loss')
    assert len(copies) == 1 and not kernels.reads
    return kernels.total


@pytest.mark.parametrize(
    'more', (dict(batch=4), dict(objects=60), dict(num_groups=26)), ids=str
)
def test_the_criterion_of_more_launches_no_more(more, monkeypatch):
    """However many images, objects and groups: one copy to the host, and no read."""
    expected = launched_in_criterion(monkeypatch)
    assert launched_in_criterion(monkeypatch, **more) == expected > 0
