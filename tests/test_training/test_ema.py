import copy

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_rfdetr.errors import ExplainedError
from mmdet_rfdetr.training.ema import RFDETREMA, RFDETREMAHook

from ..fixtures import load_json, needs_fixtures
from ..toy import Toy, runner


class Counter(nn.Module):
    """A parameter, a float buffer and an integer buffer, all equal to a step."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.register_buffer('running', torch.zeros(1, dtype=torch.float64))
        self.register_buffer('count', torch.zeros(1, dtype=torch.long))

    def set(self, step):
        for tensor in self.state_dict().values():
            tensor.fill_(step)


def trace(average, steps):
    model = Counter()
    average = MODELS.build(average, default_args=dict(model=model))
    values = []
    for step in range(1, steps + 1):
        model.set(step)
        average.update_parameters(model)
        assert average.module.count == (step if type(average) is RFDETREMA else 1)
        assert average.module.running == average.module.weight[0]
        values.append(float(average.module.weight[0]))
    return values


@needs_fixtures
@pytest.mark.parametrize('tau', [100, 0])
def test_decay_and_trace_are_the_official_ones(tau):
    official = load_json('schedules')['ema'][f'decay0.993_tau{tau}']
    average = RFDETREMA(Counter(), tau=tau)
    decays = [average.decay_after(updates) for updates in range(200)]
    assert decays == pytest.approx(
        official['callback_decay_num_averaged_0_to_199'], rel=1e-12
    )
    assert trace(dict(type='RFDETREMA', tau=tau), 200) == pytest.approx(
        official['trace_parameter_equals_step'], rel=1e-12
    )


@needs_fixtures
def test_mmdets_average_has_the_same_trace():
    official = load_json('schedules')['ema']['decay0.993_tau100']
    stock = dict(type='ExpMomentumEMA', momentum=0.007, gamma=100, update_buffers=True)
    assert trace(stock, 200) == pytest.approx(
        official['trace_parameter_equals_step'], rel=1e-12
    )


def test_weights_that_do_not_change_keep_every_bit():
    model = Counter().float()
    with torch.no_grad():
        model.weight.copy_(torch.rand(3))
    average = RFDETREMA(model)
    for _ in range(300):
        average.update_parameters(model)
    assert torch.equal(average.module.weight, model.weight)


@pytest.mark.parametrize('cfg', [dict(decay=1.0), dict(decay=-0.1), dict(tau=-1)])
def test_impossible_decay(cfg):
    with pytest.raises(ValueError, match='must be in'):
        RFDETREMA(Counter(), **cfg)


def test_impossible_interval():
    with pytest.raises(ValueError, match='interval=0 must be 1 or more'):
        RFDETREMAHook(interval=0)


def ema_hook(run):
    return next(hook for hook in run.hooks if isinstance(hook, RFDETREMAHook))


def reference(accumulation, epochs, interval=1):
    """Weights and averaged weights at the end of each epoch, by plain loops."""
    model, average = Toy(), RFDETREMA(Toy())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    total, steps, history = 10 * epochs, 0, []
    for iteration in range(total):
        loss = model(torch.tensor([[float(iteration % 10)]]), 'loss')['loss']
        rest = total % accumulation
        (loss / (rest if iteration >= total - rest else accumulation)).backward()
        if (iteration + 1) % accumulation == 0 or iteration + 1 == total:
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            if steps % interval == 0:
                average.update_parameters(model)
        if (iteration + 1) % 10 == 0:
            history.append((model.weight.item(), average.module.weight.item()))
    return history, int(average.steps), float(average.module.seen)


@pytest.mark.parametrize(
    ('accumulation', 'interval', 'updates'), [(1, 1, 20), (3, 1, 7), (2, 3, 3)]
)
def test_one_update_in_an_optimizer_step(tmp_path, accumulation, interval, updates):
    run = runner(
        tmp_path, [dict(type='RFDETREMAHook', interval=interval)], accumulation
    )
    run.train()
    history, steps, seen = reference(accumulation, 2, interval)
    hook = ema_hook(run)
    assert hook.updates == steps == updates
    assert run.model.weight.item() == pytest.approx(history[-1][0], rel=1e-6)
    assert float(hook.ema_model.module.weight) == pytest.approx(
        history[-1][1], rel=1e-6
    )
    assert float(hook.ema_model.module.seen) == pytest.approx(seen, rel=1e-6)


def record_metrics(run):
    """Metrics of each validation, as every hook after the first sees them."""
    recorded = []
    stock = run.call_hook

    def call_hook(name, **kwargs):
        stock(name, **kwargs)
        if name == 'after_val_epoch':
            recorded.append(dict(kwargs['metrics']))

    run.call_hook = call_hook
    return recorded


def test_validation_is_of_the_average(tmp_path, caplog):
    run = runner(tmp_path, [dict(type='RFDETREMAHook', evaluate_base=True)])
    lines = []
    run.logger.info = lines.append
    recorded = record_metrics(run)
    run.train()
    history, _, _ = reference(1, 2)
    for metrics, (base, average) in zip(recorded, history, strict=True):
        assert base != pytest.approx(average, rel=1e-3)
        assert metrics['weight'] == pytest.approx(average, rel=1e-6)
        assert metrics['base/weight'] == pytest.approx(base, rel=1e-6)
    logged = run.message_hub.log_scalars
    assert logged['val/base/weight'].current() == recorded[-1]['base/weight']
    assert 'Validation of the EMA weights after 10 updates' in lines
    assert 'Validation of the weights without EMA (base/...)' in lines
    assert run.model.weight.item() == pytest.approx(history[-1][0], rel=1e-6)


def test_without_the_switch_only_the_average_is_evaluated(tmp_path):
    run = runner(tmp_path)
    recorded = record_metrics(run)
    run.train()
    assert [set(metrics) for metrics in recorded] == [{'weight'}] * 2


def test_without_training_the_log_speaks_of_the_weights_as_built(tmp_path):
    run = runner(tmp_path)
    lines = []
    run.logger.info = lines.append
    run.val()
    assert 'Validation of the weights as built' in lines


def test_checkpoint_holds_the_average_ready_to_use(tmp_path):
    run = runner(tmp_path)
    run.train()
    history, _, _ = reference(1, 2)
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    base, average = history[-1]
    assert float(checkpoint['state_dict']['weight']) == pytest.approx(average)
    assert float(checkpoint['ema_state_dict']['module.weight']) == pytest.approx(base)

    other = runner(tmp_path / 'test', load_from=str(tmp_path / 'epoch_2.pth'))
    lines = []
    other.logger.info = lines.append
    assert other.test()['weight'] == pytest.approx(average)
    assert 'Test of the EMA weights of the checkpoint' in lines


def test_resume_continues_the_average(tmp_path):
    whole = runner(tmp_path / 'whole', epochs=3, accumulation=2)
    whole.train()
    resumed = runner(
        tmp_path / 'resumed',
        epochs=3,
        accumulation=2,
        load_from=str(tmp_path / 'whole' / 'epoch_1.pth'),
        resume=True,
    )
    resumed.train()
    first, second = ema_hook(whole), ema_hook(resumed)
    assert first.updates == second.updates == 15
    for one, other in zip(
        (*whole.model.state_dict().values(), *first.ema_model.state_dict().values()),
        (*resumed.model.state_dict().values(), *second.ema_model.state_dict().values()),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_fine_tuning_begins_the_average_at_the_loaded_weights(tmp_path):
    state = copy.deepcopy(Toy().state_dict())
    state['weight'].fill_(5)
    torch.save(state, tmp_path / 'plain.pth')  # neither `state_dict` nor `meta`
    run = runner(tmp_path, load_from=str(tmp_path / 'plain.pth'))
    seen = {}

    def before_train_iter(runner, batch_idx, data_batch=None):
        seen.setdefault('average', float(ema_hook(runner).ema_model.module.weight))

    ema_hook(run).before_train_iter = before_train_iter
    run.train()
    assert seen['average'] == 5


def test_resuming_without_an_average_says_so(tmp_path):
    stock = [dict(type='EMAHook')]
    plain = runner(tmp_path, stock)
    plain.train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    del checkpoint['ema_state_dict']
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    run = runner(
        tmp_path / 'resumed', load_from=str(tmp_path / 'epoch_1.pth'), resume=True
    )
    lines = []
    run.logger.log = lambda level, text: lines.append(text)
    run.train()
    assert [line for line in lines if 'no `ema_state_dict`' in line]
    assert ema_hook(run).updates == 10


def test_two_averages_are_refused(tmp_path):
    run = runner(tmp_path, [dict(type='RFDETREMAHook'), dict(type='EMAHook')])
    with pytest.raises(ExplainedError, match=r'two moving .*default_hooks\.ema'):
        run.train()
