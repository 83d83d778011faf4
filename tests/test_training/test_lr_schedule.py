import pickle

import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch import nn

from mmdet_rfdetr.data.multi_scale import optimizer_step
from mmdet_rfdetr.errors import ExplainedError

from .. import toy
from ..fixtures import load_json, needs_fixtures

EPOCH_LENGTH = 10


def wrapper(accumulative_counts=1):
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW(
        [dict(params=[parameters[0]], lr=1.0), dict(params=[parameters[1]], lr=0.25)]
    )
    return OptimWrapper(optimizer, accumulative_counts=accumulative_counts)


def build(optim_wrapper, epochs=12, epoch_length=EPOCH_LENGTH, **cfg):
    """Build a scheduler as mmengine's Runner does."""
    cfg = dict(dict(type='RFDETRLR', convert_to_iter_based=True, end=epochs), **cfg)
    return PARAM_SCHEDULERS.build(
        cfg, default_args=dict(optimizer=optim_wrapper, epoch_length=epoch_length)
    )


def rates(optim_wrapper, scheduler, iterations):
    """Learning rate of the first group at each optimizer step of a run."""
    recorded = []
    optim_wrapper.initialize_count_status(nn.Identity(), 0, iterations)
    for _ in range(iterations):
        before = optim_wrapper.optimizer.param_groups[0]['lr']
        group = optim_wrapper.optimizer.param_groups[1]
        assert group['lr'] == 0.25 * before
        optim_wrapper.update_params(group['params'][0].sum())
        if optim_wrapper.should_update():
            recorded.append(before)
        if not scheduler.by_epoch or optim_wrapper.inner_count % EPOCH_LENGTH == 0:
            scheduler.step()
    return recorded


CASES = {
    'step_default': {},
    'step_drop8_warm1': dict(warmup=1.0, lr_drop=8),
    'cosine_warm1_min0.05': dict(preset='cosine', warmup=1.0, min_factor=0.05),
    'cosine_frac_warm': dict(preset='cosine', warmup=0.5),
}


@needs_fixtures
@pytest.mark.parametrize('accumulation', [1, 3])
@pytest.mark.parametrize('case', CASES)
def test_factors_are_the_official_ones(case, accumulation):
    official = load_json('schedules')['lr'][case]
    total, epochs = official['settings']['total'], official['settings']['epochs']
    optim_wrapper = wrapper(accumulation)
    if total % epochs:  # a number of steps that no number of epochs gives
        scheduler = build(
            optim_wrapper,
            convert_to_iter_based=False,
            by_epoch=False,
            end=total * accumulation,
            preset='cosine',
            warmup=official['warmup_steps'] * accumulation,
        )
    else:
        length = official['steps_per_epoch'] * accumulation
        scheduler = build(optim_wrapper, epochs, length, **CASES[case])
    computed = rates(optim_wrapper, scheduler, total * accumulation)
    assert computed == pytest.approx(official['factor_per_step'], rel=1e-12, abs=1e-15)


def test_accumulation_that_does_not_divide_the_run():
    optim_wrapper = wrapper(4)
    scheduler = build(optim_wrapper, epochs=3, epoch_length=10, preset='cosine')
    computed = rates(optim_wrapper, scheduler, 30)
    assert len(computed) == 8  # seven of four iterations, one of two
    assert scheduler.total_steps == 8
    assert computed == [scheduler.factor(step) for step in range(8)]


def test_an_epoch_has_one_optimizer_step_at_least():
    scheduler = build(wrapper(4), epochs=5, epoch_length=1, warmup=1)
    assert scheduler.warmup_steps == 1


@pytest.mark.parametrize('stop', [7, 10, 50, 95])
def test_resume_continues_the_same_rates(stop):
    def run(optim_wrapper, scheduler, iterations):
        group = optim_wrapper.optimizer.param_groups[1]
        for _ in range(iterations):
            yield group['lr']
            optim_wrapper.update_params(group['params'][0].sum())
            scheduler.step()

    cfg = dict(preset='cosine', warmup=1.5, min_factor=0.1)
    optim_wrapper = wrapper(2)
    whole = list(run(optim_wrapper, build(optim_wrapper, **cfg), 120))

    optim_wrapper = wrapper(2)
    scheduler = build(optim_wrapper, **cfg)
    assert list(run(optim_wrapper, scheduler, stop)) == whole[:stop]
    state = pickle.dumps((optim_wrapper.state_dict(), scheduler.state_dict()))

    optim_wrapper = wrapper(2)
    scheduler = build(optim_wrapper, **cfg)
    for part, saved in zip(
        (optim_wrapper, scheduler), pickle.loads(state), strict=True
    ):
        part.load_state_dict(saved)
    optim_wrapper.initialize_count_status(nn.Identity(), stop, 120)
    assert list(run(optim_wrapper, scheduler, 120 - stop)) == whole[stop:]


def test_resume_with_more_epochs_follows_the_config():
    scheduler = build(wrapper(), epochs=2, preset='cosine')
    longer = build(wrapper(), epochs=4, preset='cosine')
    longer.load_state_dict(scheduler.state_dict())
    assert longer.total_steps == 40


def test_stock_multi_step_is_the_step_preset_without_warmup():
    ours, stock = wrapper(), wrapper()
    expected = rates(ours, build(ours, lr_drop=8), 120)
    scheduler = build(
        stock, type='MultiStepLR', milestones=[8], convert_to_iter_based=False
    )
    assert rates(stock, scheduler, 120) == pytest.approx(expected, rel=1e-12)


def test_stock_cosine_is_the_cosine_preset_without_warmup():
    ours, stock = wrapper(), wrapper()
    expected = rates(ours, build(ours, preset='cosine', min_factor=0.05), 120)
    scheduler = build(stock, type='CosineAnnealingLR', eta_min_ratio=0.05)
    assert rates(stock, scheduler, 120) == pytest.approx(expected, rel=1e-9)


def test_stock_linear_cannot_warm_up_from_zero():
    """The reason why there is a scheduler of our own."""
    optim_wrapper = wrapper()
    scheduler = build(
        optim_wrapper, type='LinearLR', start_factor=0.0, end=1, by_epoch=True
    )
    optim_wrapper.step()
    with pytest.raises(ZeroDivisionError):
        scheduler.step()


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(convert_to_iter_based=False), 'convert_to_iter_based=True'),
        (dict(preset='poly'), "preset='poly'"),
    ],
)
def test_mistakes_in_the_config(cfg, message):
    with pytest.raises(ValueError, match=message):
        build(wrapper(), **cfg)


def test_unknown_keys_raise():
    with pytest.raises(TypeError, match='warmup_iters'):
        build(wrapper(), warmup_iters=3)


HOOK = dict(param_scheduler=dict(type='RFDETRParamSchedulerHook'))
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=25, val_interval=100)


class Steps(Hook):
    """Rate and optimizer step of each iteration, as the model and augments see them."""

    def __init__(self):
        self.rates, self.steps = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])
        self.steps.append(optimizer_step())


@pytest.mark.long
def test_a_schedule_of_epochs_lasts_as_long_as_a_run_of_iterations(tmp_path):
    steps = Steps()
    run = toy.runner(
        tmp_path,
        [steps],
        train_cfg=ITERATIONS,
        scheduler=dict(
            type='RFDETRLR', preset='cosine', warmup=1, convert_to_iter_based=True
        ),
        default_hooks=HOOK,
    )
    run.train()
    (scheduler,) = run.param_schedulers
    assert (scheduler.warmup_steps, scheduler.total_steps) == (10, 25)
    wanted = [0.01 * scheduler.factor(step) for step in range(25)]
    assert steps.rates == pytest.approx(wanted)
    assert 0 < steps.rates[-1] < 0.01 / 50


def test_a_schedule_that_ends_before_the_run_is_left_alone(tmp_path):
    run = toy.runner(
        tmp_path,
        epochs=3,
        scheduler=dict(type='RFDETRLR', end=2, convert_to_iter_based=True),
        default_hooks=HOOK,
    )
    run.train()
    assert run.param_schedulers[0].total_steps == 20


def test_a_scheduler_that_would_never_step_is_refused(tmp_path):
    run = toy.runner(
        tmp_path,
        train_cfg=ITERATIONS,
        scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=HOOK,
    )
    with pytest.raises(ExplainedError, match='MultiStepLR counts epochs.*by_epoch=F'):
        run.train()


def test_any_optimizer_wrapper_tells_what_a_step_is(tmp_path):
    steps = Steps()
    run = toy.runner(tmp_path, [steps], accumulation=4, epochs=1, default_hooks=HOOK)
    run.train()
    assert type(run.optim_wrapper) is OptimWrapper
    assert steps.steps == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
