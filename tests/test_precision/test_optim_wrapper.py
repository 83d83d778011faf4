import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from mmdet_rfdetr.errors import PrecisionError
from mmdet_rfdetr.precision import PrecisionPolicy, RFDETRAmpOptimWrapper
from mmdet_rfdetr.precision.optim_wrapper import resolve_optim_wrapper


class Net(nn.Module):
    """A layer under a policy, as the detector is."""

    def __init__(self, dtype, device_type='cpu'):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.precision = PrecisionPolicy.from_config(
            None if dtype is None else dict(device_type=device_type, dtype=dtype)
        )

    def forward(self, x):
        with self.precision.autocast(x.device):
            return self.layer(x).float().square().mean()


def wrap(model, **kwargs):
    kwargs.setdefault('clip_grad', dict(max_norm=0.1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return RFDETRAmpOptimWrapper(optimizer, **kwargs)


def train(model, optim_wrapper, steps, factor=1.0):
    for step in range(steps):
        x = torch.full((2, 4), 1.0 + step)
        with optim_wrapper.optim_context(model):
            loss = model(x) * factor
        optim_wrapper.update_params(loss)
    return copy.deepcopy(model.state_dict())


def assert_equal_states(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize('dtype', [None, 'float32', 'bfloat16'])
@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_without_loss_scale_it_is_mmengines_wrapper(dtype, accumulative_counts):
    model = Net(dtype)
    wrapper = wrap(model, accumulative_counts=accumulative_counts)
    ours = train(model, wrapper, 4)
    assert wrapper.loss_scaler is None
    assert 'loss_scaler' not in wrapper.state_dict()

    model = Net(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stock = OptimWrapper(optimizer, accumulative_counts, dict(max_norm=0.1))
    assert_equal_states(ours, train(model, stock, 4))


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_the_scale_of_float16_cancels_out(accumulative_counts):
    model = Net('float16')
    wrapper = wrap(model, accumulative_counts=accumulative_counts, loss_scale=1024.0)
    ours = train(model, wrapper, 4)
    assert wrapper.loss_scaler.get_scale() == 1024.0

    model = Net('float16')
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stock = OptimWrapper(optimizer, accumulative_counts, dict(max_norm=0.1))
    unscaled = train(model, stock, 4)
    for name, value in ours.items():
        torch.testing.assert_close(value, unscaled[name], rtol=1e-3, atol=1e-3)


def test_the_clipped_gradient_is_the_unscaled_one():
    model = Net('float16')
    wrapper = wrap(model, clip_grad=dict(max_norm=1e-3))
    before = copy.deepcopy(model.state_dict())
    after = train(model, wrapper, 1)
    moved = torch.cat([(after[k] - before[k]).flatten() for k in before]).norm()
    assert moved == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_an_overflow_skips_the_step_and_halves_the_scale():
    model = Net('float16')
    wrapper = wrap(model, clip_grad=None)
    before = copy.deepcopy(model.state_dict())
    assert_equal_states(before, train(model, wrapper, 1, factor=1e30))
    assert wrapper.loss_scaler.get_scale() == 2.0**15


@pytest.mark.parametrize(
    ('loss_scale', 'scale'),
    [(512.0, 512.0), (512, 512.0), (dict(init_scale=8.0, growth_interval=1), 32.0)],
)
def test_given_scales(loss_scale, scale):
    model = Net('float16')
    wrapper = wrap(model, loss_scale=loss_scale)
    train(model, wrapper, 2)
    assert wrapper.loss_scaler.get_scale() == scale


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(loss_scale='static'), ['loss_scale', 'static', 'dynamic']),
        (dict(loss_scale=-1.0), ['loss_scale', '-1.0', 'positive']),
    ],
)
def test_illegal_values_name_the_legal_ones(kwargs, words):
    with pytest.raises(PrecisionError) as error:
        wrap(Net('float16'), **kwargs)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('key', ['device_type', 'dtype'])
def test_an_old_key_with_another_value_than_the_model_is_refused(key):
    model = Net('float16')
    with pytest.raises(PrecisionError, match=f'optim_wrapper says .*{key}=None'):
        wrap(model, **{key: 'other'}).bind(model)


def test_a_misspelt_key_is_an_error():
    with pytest.raises(TypeError, match='dtpye'):
        wrap(Net('float16'), dtpye='float16')


@pytest.mark.parametrize(
    'keys',
    [
        {},
        dict(device_type='cpu', dtype='bfloat16'),
        dict(device_type='cpu'),
        dict(dtype='bfloat16'),
    ],
)
def test_left_out_keys_follow_the_model(keys):
    model = Net('bfloat16')
    train(model, wrap(model, **keys), 1)


def test_a_device_says_nothing_about_float32():
    model = Net(None)
    train(model, wrap(model, device_type='cuda'), 1)


@pytest.mark.parametrize('enter', ['optim_context', 'initialize_count_status'])
def test_a_contradiction_stops_before_the_first_step(enter):
    model = Net('bfloat16')
    wrapper = wrap(model, device_type='cuda', dtype='float16')
    with pytest.raises(PrecisionError) as error:
        if enter == 'optim_context':
            train(model, wrapper, 1)
        else:
            wrapper.initialize_count_status(model, 0, 10)
    assert 'cpu bfloat16' in str(error.value)
    assert 'cuda float16' in str(error.value)


def test_a_model_without_policy_is_refused():
    model = nn.Linear(1, 1)
    with pytest.raises(PrecisionError, match='optim_wrapper.type=OptimWrapper'):
        wrap(model).initialize_count_status(model, 0, 1)


def test_backward_without_the_model_is_refused():
    model = Net('float16')
    with pytest.raises(RuntimeError, match='optim_context'):
        wrap(model).update_params(model(torch.ones(1, 4)))


def resume(state, dtype):
    model = Net(dtype)
    wrapper = wrap(model)
    wrapper.load_state_dict(state)
    wrapper.initialize_count_status(model, 3, 10)
    return model, wrapper


def test_the_loss_scale_is_resumed():
    model = Net('float16')
    wrapper = wrap(model, loss_scale=dict(init_scale=4.0, growth_interval=3))
    train(model, wrapper, 4)
    state = copy.deepcopy(wrapper.state_dict())
    model, resumed = resume(state, 'float16')
    assert resumed.loss_scaler.get_scale() == 8.0
    assert resumed.state_dict()['loss_scaler']['_growth_tracker'] == 1
    train(model, resumed, 1)


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_a_loss_scale_that_is_not_needed_is_left(dtype):
    model = Net('float16')
    wrapper = wrap(model)
    train(model, wrapper, 1)
    model, resumed = resume(copy.deepcopy(wrapper.state_dict()), dtype)
    train(model, resumed, 1)
    assert resumed.loss_scaler is None
    assert 'loss_scaler' not in resumed.state_dict()


def test_a_missing_loss_scale_starts_anew():
    model = Net('bfloat16')
    wrapper = wrap(model)
    train(model, wrapper, 1)
    model, resumed = resume(copy.deepcopy(wrapper.state_dict()), 'float16')
    train(model, resumed, 1)
    assert resumed.loss_scaler.get_scale() == 2.0**16


@pytest.mark.parametrize('amp', ['AmpOptimWrapper', AmpOptimWrapper])
def test_amp_is_put_back_with_one_line(amp, log):
    cfg = dict(type=amp, loss_scale='dynamic', dtype='bfloat16')
    resolved = resolve_optim_wrapper(cfg, Net('bfloat16'))
    assert resolved == dict(cfg, type='RFDETRAmpOptimWrapper')
    assert cfg['type'] == amp
    (line,) = log
    assert 'AmpOptimWrapper' in line
    assert 'cpu bfloat16' in line


@pytest.mark.parametrize('kind', ['RFDETRAmpOptimWrapper', 'OptimWrapper', None])
def test_other_wrappers_stay(kind, log):
    cfg = dict(type=kind) if kind else {}
    assert resolve_optim_wrapper(cfg, Net('bfloat16')) == cfg
    assert not log


def test_amp_for_a_float32_model_is_a_contradiction():
    with pytest.raises(PrecisionError) as error:
        resolve_optim_wrapper(dict(type='AmpOptimWrapper'), Net(None))
    assert 'model.precision is float32' in str(error.value)
    assert 'model.precision._delete_=True' in str(error.value)
