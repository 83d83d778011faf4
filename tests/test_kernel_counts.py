"""What a GPU would be asked to launch, as upper bounds: it may only get less.

Counts depend on the structure alone, so the model is Nano with narrow layers.
"""

import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch._inductor.utils import fresh_cache, run_and_get_code

import mmdet_rfdetr
from mmdet_rfdetr.speed import packed_linear
from tests import parity

from .kernels import Kernels
from .processors import unknown_processor

IMAGE = (384, 384)


def nano(precision):
    model = Config.fromfile(mmdet_rfdetr.config('rfdetr_nano_coco.py')).model
    model.backbone.update(embed_dims=24, num_heads=3)
    model.neck.update(in_channels=[24] * 4, out_channels=32)
    model.decoder.update(feedforward_channels=32)
    model.pop('data_preprocessor')
    model.precision = precision
    return MODELS.build(model)


def inputs(batch, objects=20):
    counts = [objects] * batch
    return parity.rule_batch([IMAGE] * batch, counts=counts, num_classes=80)


BFLOAT16 = dict(device_type='cpu', dtype='bfloat16')


def test_detecting():
    assert_launched(nano(None).eval(), 290)


@pytest.mark.parametrize(
    ('precision', 'on_cpu', 'most'),
    (
        (None, True, 198),
        (BFLOAT16, True, 278),
        (None, False, 241),
        (BFLOAT16, False, 297),
    ),
    ids=('float32', 'bfloat16', 'float32, GPU', 'bfloat16, GPU'),
)
def test_detecting_deployed(precision, on_cpu, most, monkeypatch):
    """On a CPU with units for the dtype, and with the operators that a GPU has."""
    unknown_processor(monkeypatch)
    if precision and on_cpu and not packed_linear.packable(torch.bfloat16):
        pytest.skip('oneDNN does not compute bfloat16 on this processor')
    if not on_cpu:
        monkeypatch.setattr(packed_linear, 'packable', lambda dtype: False)
    assert_launched(nano(precision).switch_to_deploy(), most)


def assert_launched(model, most):
    images, samples = inputs(1)
    with torch.no_grad():
        model(images, samples, mode='predict')
        with Kernels() as kernels:
            model(images, samples, mode='predict')
    assert not kernels.reads
    assert kernels.total <= most, kernels.launched.most_common()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:.torch.jit.script_method. is deprecated')
@pytest.mark.parametrize(
    ('precision', 'most'),
    ((None, 187), (BFLOAT16, 190)),
    ids=('float32', 'bfloat16'),
)
def test_detecting_compiled(precision, most):
    """Operators as above, and the functions that Inductor fused for a CPU."""
    torch._dynamo.reset()
    model = nano(precision).switch_to_deploy()
    model.compile()
    images, samples = inputs(1)
    with torch.no_grad(), fresh_cache():
        _, sources = run_and_get_code(model, images, samples, mode='predict')
        with Kernels() as kernels:
            model(images, samples, mode='predict')
    fused = re.findall(r'^ +cpp_fused\w*\(', '\n'.join(sources), re.MULTILINE)
    assert len(sources) == len(model.compilation.parts)
    assert not kernels.reads
    assert kernels.total + len(fused) <= most, kernels.launched.most_common()


@pytest.mark.parametrize('batch', (2, 4))
@pytest.mark.parametrize(('errors', 'most'), ((False, 146), (True, 175)))
def test_the_criterion_of_a_step(batch, errors, most, monkeypatch):
    """Matching and all losses; the costs in one piece, as on a GPU."""
    monkeypatch.setattr('mmdet_rfdetr.matching.costs.CPU_BLOCK', 2**40)
    if not errors:  # Numbers for the log alone.
        monkeypatch.setattr(
            'mmdet_rfdetr.models.head.prediction_errors', lambda *arguments: {}
        )
    model = nano(BFLOAT16).train()
    images, samples = inputs(batch)
    with model.precision.autocast(images.device):
        outputs, _ = model._outputs(images, samples)
        predictions = model.bbox_head(outputs['hidden_states'], outputs['references'])
        copies = count_copies_to_host(monkeypatch)
        with Kernels() as kernels:
            model.bbox_head.loss_by_feat(
                *predictions,
                outputs['enc_outputs_class'],
                outputs['enc_outputs_coord'],
                batch_gt_instances=[sample.gt_instances for sample in samples],
                batch_img_metas=[sample.metainfo for sample in samples],
                num_groups=model.num_groups,
            )
    assert len(copies) == 1 and not kernels.reads
    assert kernels.total <= most, kernels.launched.most_common()


def count_copies_to_host(monkeypatch):
    copies, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, 'cpu', lambda self: copies.append(self.shape) or cpu(self)
    )
    return copies
