import argparse
import re
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

import mmdet_rfdetr
from mmdet_rfdetr.errors import PrecisionError
from mmdet_rfdetr.models import RFDETR
from mmdet_rfdetr.precision import RFDETRAmpOptimWrapper

from ..test_precision.recorder import recorded
from .precision_project import project_config, run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(pictures, tmp_path):
    return project_config(pictures, tmp_path)


@pytest.fixture
def no_forward(monkeypatch):
    """Make any step of the model an error."""

    def forward(*args, **kwargs):
        raise AssertionError('the model ran before the disagreement was found')

    monkeypatch.setattr(RFDETR, 'forward', forward)


def printed_fixes(message):
    """Each run of overrides after ``--cfg-options``, read as the tools read them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    fixes = re.findall(r'--cfg-options((?: [\w.]+=\w+)+)', message)
    return [
        parser.parse_args(['--cfg-options', *fix.split()]).cfg_options for fix in fixes
    ]


DISAGREEMENTS = {
    'child sets only the model dtype': (
        {'model.precision.dtype': 'float16'},
        ['model.precision is cpu float16', 'optim_wrapper says cpu bfloat16'],
        1,
    ),
    'child sets only the model device': (
        {'model.precision.device_type': 'cuda'},
        ['model.precision is cuda bfloat16', 'optim_wrapper says cpu bfloat16'],
        1,
    ),
    'child sets only the optimizer dtype': (
        {'optim_wrapper.dtype': 'float16'},
        ['model.precision is cpu bfloat16', 'optim_wrapper says cpu float16'],
        1,
    ),
    'child sets only the optimizer device': (
        {'optim_wrapper.device_type': 'cuda'},
        ['model.precision is cpu bfloat16', 'optim_wrapper says cuda bfloat16'],
        1,
    ),
    'model in float32': (
        {'model.precision': None},
        ['model.precision is float32', 'optim_wrapper says cpu bfloat16'],
        1,
    ),
    'optimizer in float32': (
        {'optim_wrapper.dtype': 'float32'},
        ['model.precision is cpu bfloat16', 'optim_wrapper says float32'],
        1,
    ),
    'validation in fp16': (
        {'val_cfg.fp16': True},
        ['model.precision is cpu bfloat16', 'val_cfg.fp16=True'],
        1,
    ),
    'test in fp16': (
        {'test_cfg.fp16': True},
        ['model.precision is cpu bfloat16', 'test_cfg.fp16=True'],
        1,
    ),
    'compile': (
        {'compile': True},
        ['model.precision is cpu bfloat16', 'compile=True', 'compile=False'],
        1,
    ),
    'compile with options': (
        {'compile': dict(backend='eager')},
        ['model.precision is cpu bfloat16', "compile={'backend': 'eager'}"],
        1,
    ),
}


@pytest.mark.parametrize('name', DISAGREEMENTS)
def test_a_disagreement_stops_before_the_first_step(name, config):
    overrides, words, number_of_fixes = DISAGREEMENTS[name]
    with recorded() as seen, pytest.raises(PrecisionError) as error:
        run(config, 'train', overrides)
    assert not seen
    for word in words:
        assert word in str(error.value)
    fixes = printed_fixes(str(error.value))
    assert len(fixes) == number_of_fixes
    for fix in fixes:
        assert run(config, 'train', overrides, fix).iter == 2


def test_a_config_states_the_precision_once(config, tmp_path):
    """One that inherits changes it in the model, and the optimizer wrapper follows."""
    shipped = Config.fromfile(mmdet_rfdetr.config('rfdetr_coco.py'))
    assert not {'device_type', 'dtype'} & set(shipped.optim_wrapper)
    for key in ('device_type', 'dtype'):
        config.optim_wrapper.pop(key, None)
    wrapper = run(config, 'train', {'model.precision.dtype': 'float16'}).optim_wrapper
    assert wrapper.loss_scaler is not None


def test_an_autocast_around_the_run(config, no_forward):
    outer = torch.autocast('cpu', dtype=torch.float16)
    with outer, pytest.raises(PrecisionError) as error:
        run(config, 'train')
    assert 'model.precision is cpu bfloat16' in str(error.value)
    assert 'an autocast of cpu float16' in str(error.value)


@pytest.mark.parametrize('mode', ['val', 'test'])
@pytest.mark.parametrize('loop', ['val_cfg', 'test_cfg'])
def test_runs_without_training_check_their_loops(mode, loop, config, no_forward):
    with pytest.raises(PrecisionError, match=f'{loop}.fp16=True'):
        run(config, mode, {f'{loop}.fp16': True})


def test_all_disagreements_are_named_at_once(config, no_forward):
    with pytest.raises(PrecisionError) as error:
        run(config, 'train', {'val_cfg.fp16': True, 'optim_wrapper.dtype': 'float16'})
    assert 'val_cfg.fp16=True' in str(error.value)
    assert 'optim_wrapper says cpu float16' in str(error.value)


def test_a_wrapper_that_does_not_scale_float16(config, no_forward):
    plain = dict(
        _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-4)
    )
    with pytest.raises(PrecisionError) as error:
        run(
            config,
            'train',
            {'model.precision.dtype': 'float16', 'optim_wrapper': plain},
        )
    assert 'cpu float16' in str(error.value)
    (fix,) = printed_fixes(str(error.value))
    assert fix == {'optim_wrapper.type': 'RFDETRAmpOptimWrapper'}


def test_a_plain_wrapper_trains_in_bfloat16(config):
    plain = dict(
        _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-4)
    )
    run(config, 'train', {'optim_wrapper': plain})


@pytest.mark.filterwarnings('ignore:.*GradScaler:FutureWarning')
def test_the_stock_amp_wrapper(config, no_forward, monkeypatch):
    # mmengine refuses to build it on a CPU.
    monkeypatch.setattr(
        'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: True
    )
    stock = dict(
        _delete_=True,
        type='AmpOptimWrapper',
        optimizer=dict(type='SGD', lr=1e-4),
        loss_scale=dict(enabled=False),
    )
    with pytest.raises(PrecisionError) as error:
        run(config, 'train', {'optim_wrapper': stock})
    assert 'model.precision is cpu bfloat16' in str(error.value)
    assert 'optim_wrapper.type=AmpOptimWrapper' in str(error.value)
    (fix,) = printed_fixes(str(error.value))
    assert fix == {'optim_wrapper.type': 'RFDETRAmpOptimWrapper'}


TOOLS = [
    REPOSITORY / 'tools/train.py',
    Path(mmdet.__file__).parent / '.mim/tools/train.py',
]


@pytest.mark.parametrize('constructor', ['RFDETR', 'RFDETRUniform'])
@pytest.mark.parametrize('tool', TOOLS, ids=['ours', 'mmdet'])
def test_amp_is_put_back_with_one_line(
    tool, constructor, config, tmp_path, monkeypatch, log
):
    config.optim_wrapper.constructor = f'{constructor}OptimWrapperConstructor'
    # Runs of the same name within one second would share logger and message hub.
    path = tmp_path / f'{tmp_path.name}.py'
    config.dump(path)
    used = []
    step = RFDETRAmpOptimWrapper.step
    monkeypatch.setattr(
        RFDETRAmpOptimWrapper, 'step', lambda self: (used.append(self), step(self))
    )
    monkeypatch.setattr(sys, 'argv', ['train.py', str(path), '--amp'])
    runpy.run_path(str(tool), run_name='__main__')
    assert len(used) == 2
    assert sum('AmpOptimWrapper (--amp sets it)' in line for line in log) == 1


def test_amp_for_a_float32_model(config, no_forward):
    amp = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': None}
    overrides = {'model.precision': None, **amp}
    with pytest.raises(PrecisionError) as error:
        run(config, 'train', overrides)
    assert 'AmpOptimWrapper' in str(error.value)
    assert 'model.precision is float32' in str(error.value)


def test_the_hook_cannot_be_lost_by_replacing_custom_hooks(config, no_forward):
    with pytest.raises(PrecisionError, match='val_cfg.fp16'):
        run(config, 'train', {'custom_hooks': [], 'val_cfg.fp16': True})


def test_without_the_hook_the_wrapper_checks(config, no_forward):
    del config.default_hooks.precision
    with pytest.raises(PrecisionError, match='optim_wrapper says cpu float16'):
        run(config, 'train', {'optim_wrapper.dtype': 'float16'})


def test_without_the_hook_forward_checks(config):
    del config.default_hooks.precision
    # On a CPU, mmengine's loop enters bfloat16: equal to that policy, not to this.
    overrides = {'model.precision.dtype': 'float16', 'optim_wrapper.dtype': 'float16'}
    with pytest.raises(PrecisionError, match='says cpu bfloat16'):
        run(config, 'val', {'val_cfg.fp16': True, **overrides})


def test_every_loop_says_once_what_it_runs_in(config, log):
    runner = run(config, 'train')
    runner.test()
    for loop in ('training', 'validation', 'testing'):
        (line,) = (line for line in log if f'Precision in {loop}' in line)
        assert 'cpu bfloat16' in line


@pytest.mark.parametrize('loop', ('training', 'validation'))
def test_a_forward_that_bypasses_the_policy_is_stopped(
    loop, pictures, tmp_path, monkeypatch
):
    config = project_config(pictures, tmp_path)
    step = RFDETR._step

    def sometimes(self):
        bypasses = loop == 'training' or not self.training
        return nullcontext() if bypasses else step(self)

    monkeypatch.setattr(RFDETR, '_step', sometimes)
    with pytest.raises(PrecisionError, match=f'{loop} ran outside of the policy'):
        run(config, 'train')


def test_a_policy_that_changes_during_a_run_is_stopped(pictures, tmp_path):
    config = project_config(pictures, tmp_path)
    runner = Runner.from_cfg(config)
    runner.train()
    runner.model.precision = type(runner.model.precision)('cpu', 'float16')
    with pytest.raises(PrecisionError) as error:
        runner.val_loop.run()
    assert 'one of cpu bfloat16' in str(error.value)
    assert 'validation ran cpu float16' in str(error.value)


class CastAverage(Hook):
    """Cast the averaged weights, or a part of them, when training begins."""

    def __init__(self, part):
        self.part = part

    def before_train(self, runner):
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.ema_model.get_submodule(self.part).bfloat16()


@pytest.mark.parametrize('part', ['', 'module.neck'])
@pytest.mark.parametrize('kind', ['RFDETREMAHook', 'EMAHook'])
def test_an_average_that_was_cast_is_refused(kind, part, pictures, tmp_path):
    config = project_config(pictures, tmp_path)
    config.custom_hooks = [dict(type=kind)]
    runner = Runner.from_cfg(config)
    runner.register_hook(CastAverage(part))
    with pytest.raises(PrecisionError, match='of ema_model were cast to bfloat16'):
        runner.train()
