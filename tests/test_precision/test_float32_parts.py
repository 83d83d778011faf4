"""Matching, losses, boxes, positions, sampling locations and outputs are float32.

Every operation of a bfloat16 step is observed, and put down to the innermost
function of this package, or of mmdet's losses, that called it.
"""

import copy
import sys
from collections import defaultdict
from pathlib import Path

import mmdet
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mmdet_rfdetr
from mmdet_rfdetr.models import deformable_attention
from mmdet_rfdetr.models.query_selection import unpadded_proposals
from mmdet_rfdetr.precision import PrecisionPolicy

from .batches import golden_batch

PACKAGE = Path(mmdet_rfdetr.__file__).parent
MMDET = Path(mmdet.__file__).parent

# File, or file and function, below the package or mmdet; all of them have to run.
DETECTION_PARTS = {
    'ops/boxes.py',
    'losses/',
    'matching/assigner.py',
    'matching/costs.py',
    'models/decoder.py:sine_embedding',
    'models/deformable_attention.py:sample_and_sum',
    'models/head.py:loss_by_feat',
    'models/detections.py:best_detections',
    'models/losses/',
    'models/query_selection.py:make_proposals',
    'ops/resampling.py',
}


class Observer(TorchDispatchMode):
    """Note the dtypes of floating-point results of every operation by its caller."""

    def __init__(self):
        super().__init__()
        self.dtypes = defaultdict(set)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        caller = _caller()
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.dtypes[caller].add(value.dtype)
        return result

    def of(self, part):
        """Dtypes of a part of the package."""
        found = [dtypes for name, dtypes in self.dtypes.items() if _is_in(name, part)]
        return set().union(*found)


def _caller():
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for root in (PACKAGE, MMDET / 'models' / 'losses'):
            if path.is_relative_to(root) and path.parent.name != 'precision':
                base = PACKAGE if root == PACKAGE else MMDET
                return f'{path.relative_to(base)}:{frame.f_code.co_name}'
        frame = frame.f_back
    return 'elsewhere'


def _is_in(name, part):
    path, _, function = part.partition(':')
    return name.startswith(path) and function in ('', name.rpartition(':')[2])


@pytest.fixture
def parts():
    """Parts that compute in float32."""
    return DETECTION_PARTS


@pytest.fixture
def case():
    """Model, images and samples, with padding on two levels."""
    return low_batch('levels')


def low_batch(name):
    """A golden case in bfloat16."""
    model, images, samples = golden_batch(name, training=True)
    model.precision = PrecisionPolicy('cpu', 'bfloat16')
    return model, images, samples


def observe(model, images, samples):
    """Run a training step and a detection."""
    unpadded_proposals.cache_clear()  # Made once for each size.
    with Observer() as observer:
        losses = model.train()(images, copy.deepcopy(samples), 'loss')
        model.eval()(images, copy.deepcopy(samples), 'predict')
    return observer, losses


def test_every_named_part_computes_in_float32(case, parts):
    observer, _ = observe(*case)
    for part in sorted(parts):
        assert observer.of(part) == {torch.float32}, part
    # Else there would be nothing to guard against.
    for part in ('models/backbone.py', 'models/decoder.py:forward'):
        assert torch.bfloat16 in observer.of(part)


@pytest.mark.parametrize('part', sorted(DETECTION_PARTS))
def test_one_low_operation_in_a_part_is_found(part):
    path, _, function = part.partition(':')
    root = MMDET if path.startswith('models/losses') else PACKAGE
    path, function = path + 'any.py' * path.endswith('/'), function or 'any'
    source = f'def {function}(x):\n    return x.bfloat16().add(1).float()'
    namespace = {}
    exec(compile(source, str(root / path), 'exec'), namespace)
    with Observer() as observer:
        namespace[function](torch.ones(1))
    assert observer.of(part) == {torch.float32, torch.bfloat16}


def test_sampling_locations_are_computed_in_float32(case, monkeypatch):
    # Not only used in it: rounding before the island would do the same harm.
    dtypes = []
    sample = deformable_attention.sample_and_sum

    def spy(value, spatial_shapes, grids, weights):
        dtypes.append((grids.dtype, weights.dtype, value.dtype))
        return sample(value, spatial_shapes, grids, weights)

    monkeypatch.setattr(deformable_attention, 'sample_and_sum', spy)
    observe(*case)
    assert set(dtypes) == {(torch.float32, torch.float32, torch.bfloat16)}


def test_losses_and_outputs_are_float32(case):
    model, images, samples = case
    _, losses = observe(*case)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    outputs = model(images, samples, 'tensor')
    assert {'pred_logits', 'pred_boxes', 'aux_outputs', 'enc_outputs'} <= set(outputs)
    assert {x.dtype for x in tree_leaves(outputs)} == {torch.float32}
    for sample in model(images, samples, 'predict'):
        assert sample.pred_instances.bboxes.dtype == torch.float32
        assert sample.pred_instances.scores.dtype == torch.float32


def test_all_gradients_are_float32_and_present(case):
    model, images, samples = case
    sum(model.train()(images, samples, 'loss').values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None] == []
    assert {g.dtype for g in gradients.values()} == {torch.float32}
