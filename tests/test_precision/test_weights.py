"""All weights are float32, and all ways into a model lead through its policy."""

import copy
import itertools
import threading

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmdet_rfdetr.errors import PrecisionError
from mmdet_rfdetr.precision import PrecisionPolicy, RFDETRUniformOptimWrapperConstructor
from mmdet_rfdetr.precision.weights import WeightDtypes
from mmdet_rfdetr.training.optim_constructor import RFDETROptimWrapperConstructor
from tests import factory

from .recorder import expected, recorded

DTYPES = (torch.float16, torch.bfloat16, torch.float64)
POLICIES = (
    PrecisionPolicy(),
    PrecisionPolicy('cpu', 'bfloat16'),
    PrecisionPolicy('cpu', 'float16'),
)


def model(policy=POLICIES[0]):
    built = factory.build_model()
    built.precision = policy
    return built


def images():
    return torch.rand(1, 3, factory.SIDE, factory.SIDE)


def parts_of(built):
    """Whatever can be cast alone: modules, single parameters and buffers."""
    for name, module in built.named_children():
        if WeightDtypes(module).now():
            yield name, module.to
    for holder in (built, *built.modules()):
        for name, tensor in holder.named_parameters(recurse=False):
            yield name, lambda dtype, x=tensor: setattr(x, 'data', x.data.to(dtype))
        for name, buffer in list(holder.named_buffers(recurse=False)):
            yield (
                name,
                lambda dtype, h=holder, n=name, x=buffer: setattr(h, n, x.to(dtype)),
            )


@pytest.mark.parametrize('policy', POLICIES, ids=str)
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_a_part_that_was_cast_is_refused(policy, training):
    built = model(policy).train(training)
    built(images())  # what has run before may still be cast
    count = 0
    for (_, cast), dtype in itertools.product(parts_of(built), DTYPES):
        cast(dtype)
        with pytest.raises(PrecisionError, match=r'were cast to .* model\.float\(\)'):
            built(images())
        cast(torch.float32)
        count += 1
    assert count > 300
    built(images())


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_a_model_that_was_cast_is_refused_until_it_is_cast_back(dtype):
    built = model().eval()
    built(images())
    copied = copy.deepcopy(built).to(dtype)
    with pytest.raises(PrecisionError, match='first of all query_embedding'):
        copied(images())
    built(images())
    copied.float()(images())
    part = copy.deepcopy(built)
    part.neck.to(dtype)
    with pytest.raises(PrecisionError, match='first of all neck'):
        part(images())


def test_all_weights_may_have_the_dtype_of_the_policy_but_not_in_training():
    built = model(POLICIES[1]).eval().bfloat16()
    assert built(images())['pred_boxes'].dtype == torch.float32
    with pytest.raises(PrecisionError, match='were cast to bfloat16'):
        built.train()(images())


def test_no_optimizer_is_built_for_weights_that_were_cast():
    built = model(POLICIES[1])
    built.bbox_head.bfloat16()
    cfg = dict(type=OptimWrapper, optimizer=dict(type='AdamW', lr=1, weight_decay=0))
    for constructor in (
        RFDETROptimWrapperConstructor,
        RFDETRUniformOptimWrapperConstructor,
    ):
        with pytest.raises(PrecisionError, match='first of all bbox_head'):
            constructor(cfg)(built)


WAYS = {
    'loss': lambda m, data: m.loss(**data),
    'predict': lambda m, data: m.predict(**data),
    '_forward': lambda m, data: m._forward(data['batch_inputs']),
    'extract_feat': lambda m, data: m.extract_feat(data['batch_inputs']),
    'mmdet': lambda m, data: super(type(m), m).forward(*data.values(), mode='predict'),
}


def data_of(built):
    data = built.data_preprocessor(factory.batch((1, 2)), False)
    return dict(batch_inputs=data['inputs'], batch_data_samples=data['data_samples'])


@pytest.mark.parametrize('way', WAYS)
def test_every_way_into_the_model_leads_through_the_policy(way):
    built = model(POLICIES[1]).eval()
    data = data_of(built)
    with recorded() as seen:
        WAYS[way](built, data)
    assert seen
    assert set(seen) == {expected(torch.bfloat16)}
    with torch.autocast('cpu', dtype=torch.float16):  # noqa: SIM117
        with pytest.raises(PrecisionError, match='the autocast around the model'):
            WAYS[way](built, data)
    built.neck.half()
    with pytest.raises(PrecisionError, match='were cast to float16'):
        WAYS[way](built, data)
    assert not torch.is_autocast_enabled('cpu')


def test_the_transformer_alone_runs_under_the_policy():
    built = model(POLICIES[1]).eval()
    features = built.extract_feat(images())
    seen = []
    built.decoder.register_forward_hook(
        lambda *_: seen.append(torch.is_autocast_enabled('cpu'))
    )
    built.forward_transformer(features)
    assert seen == [True]


def test_numbers_do_not_depend_on_the_way():
    built = model(POLICIES[1])
    data = data_of(built)
    direct = built.loss(**data)
    through = built(*data.values(), mode='loss')
    assert all(torch.equal(direct[name], through[name]) for name in through)


def test_threads_enter_the_policy_each():
    built = model(POLICIES[1]).eval()
    data = data_of(built)

    def meanwhile(*_):
        handle.remove()
        thread = threading.Thread(target=built.predict, kwargs=data)
        thread.start()
        thread.join()

    handle = built.backbone.register_forward_hook(meanwhile)
    with recorded() as seen:
        built.predict(**data)
    assert set(seen) == {expected(torch.bfloat16)}
    assert len(seen) == 2 * len(built.backbone.blocks)
