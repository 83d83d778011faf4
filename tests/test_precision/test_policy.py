import copy

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdet_rfdetr.errors import PrecisionError
from mmdet_rfdetr.precision import PrecisionPolicy, autocast_on, find_policy

CPU = torch.device('cpu')
CUDA = torch.device('cuda', 0)


def policy(device_type, dtype):
    return PrecisionPolicy.from_config(dict(device_type=device_type, dtype=dtype))


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (dict(device_type='cuda', dtpye='bfloat16'), ['dtpye', "dtype='bfloat16'"]),
        (dict(dtype='bfloat16'), ["device_type='cuda'"]),
        (dict(device_type='cuda', dtype='bf16'), ['bf16', 'bfloat16', 'float16']),
        (dict(device_type='tpu', dtype='bfloat16'), ['tpu', 'cuda', 'cpu']),
        (dict(device_type=None, dtype='bfloat16'), ['None', 'cuda', 'cpu']),
        ('bfloat16', ['bfloat16', 'None', 'dict']),
    ],
)
def test_illegal_configs_name_the_legal_ones(config, words):
    with pytest.raises(PrecisionError) as error:
        PrecisionPolicy.from_config(config)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_autocast_on_the_named_device(dtype):
    one = policy('cpu', dtype)
    layer = nn.Linear(4, 4)
    with one.autocast(CPU):
        output = layer(torch.ones(1, 4))
        assert autocast_on('cpu') == one.seen
    assert output.dtype == getattr(torch, dtype)
    assert one.seen == f'cpu {dtype}'
    assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize('config', [None, dict(device_type='cpu', dtype='float32')])
def test_float32(config):
    one = PrecisionPolicy.from_config(config)
    with one.autocast(CPU):
        assert nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32
    assert one.seen == 'float32'


def test_another_device_means_float32_and_one_message(log):
    one = policy('cuda', 'bfloat16')
    for _ in range(3):
        with one.autocast(CPU):
            assert nn.Linear(4, 4)(torch.ones(1, 4)).dtype == torch.float32
    (line,) = log
    assert 'cuda bfloat16' in line
    assert 'model.precision.device_type=cpu model.precision.dtype=bfloat16' in line


@pytest.mark.parametrize(
    ('named', 'device', 'level'), [('cuda', 'cpu', 'INFO'), ('cpu', 'cuda', 'WARNING')]
)
def test_float32_is_a_warning_on_an_accelerator_only(named, device, level, monkeypatch):
    levels = []
    monkeypatch.setattr(
        MMLogger, 'callHandlers', lambda _, entry: levels.append(entry.levelname)
    )
    policy(named, 'bfloat16').resolve(torch.device(device))
    assert levels == [level]


@pytest.fixture
def old_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'Tesla T4')
    monkeypatch.setattr(torch.version, 'hip', None)


def test_gpu_without_bfloat16_is_an_error_that_names_the_choices(old_gpu):
    with pytest.raises(PrecisionError) as error:
        policy('cuda', 'bfloat16').resolve(CUDA)
    for word in ('Tesla T4', 'dtype=float16', 'model.precision=None'):
        assert word in str(error.value)


def test_gpu_without_bfloat16_runs_the_choices(old_gpu):
    assert policy('cuda', 'float16').resolve(CUDA) == torch.float16
    assert policy('cuda', 'float32').resolve(CUDA) == torch.float32


def test_gpu_with_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    assert policy('cuda', 'bfloat16').resolve(CUDA) == torch.bfloat16


@pytest.mark.parametrize(
    'outer',
    [dict(device_type='cpu', dtype=torch.float16), dict(device_type='cuda')],
)
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_a_different_outer_autocast_is_refused(outer, dtype, monkeypatch):
    # torch.autocast turns itself off without CUDA; this is what it would do with it.
    monkeypatch.setattr(
        'torch.cuda.amp.common.amp_definitely_not_available', lambda: False
    )
    inner = policy('cpu', dtype).autocast(CPU)
    with pytest.raises(PrecisionError) as error, torch.autocast(**outer), inner:
        pass
    own = 'cpu bfloat16' if dtype == 'bfloat16' else 'float32'
    assert f'model.precision is {own}' in str(error.value)
    assert f'says {outer["device_type"]} float16' in str(error.value)


@pytest.mark.parametrize(
    'outer', [dict(dtype=torch.bfloat16), dict(dtype=torch.float16, enabled=False)]
)
def test_an_outer_autocast_that_is_equal_or_off_changes_nothing(outer):
    one = policy('cpu', 'bfloat16')
    with torch.autocast('cpu', **outer), one.autocast(CPU):
        pass
    assert one.seen == 'cpu bfloat16'


def test_equality_is_that_of_the_precision():
    float32 = PrecisionPolicy.from_config(None)
    assert float32 == policy('cuda', 'float32') == policy('cpu', 'float32')
    assert len({float32, policy('cuda', 'float32')}) == 1
    assert policy('cuda', 'bfloat16') == policy('cuda', 'bfloat16')
    assert policy('cuda', 'bfloat16') != policy('cpu', 'bfloat16')
    assert policy('cuda', 'bfloat16') != policy('cuda', 'float16')
    assert copy.deepcopy(policy('cuda', 'bfloat16')) == policy('cuda', 'bfloat16')


def test_the_policy_is_found_inside_wrappers():
    model = nn.Linear(2, 2)
    model.precision = policy('cpu', 'bfloat16')
    assert find_policy(nn.Sequential(nn.ReLU(), model)) == (model.precision, CPU)
    assert find_policy(nn.Linear(2, 2)) is None
