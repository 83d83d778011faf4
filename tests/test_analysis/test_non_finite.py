"""What is not finite stops the run before the optimizer step, and is explained."""

import re
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_rfdetr.analysis.dump import replay, restore_sample, serialise_sample
from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.errors import CheckpointError, NonFiniteError
from mmdet_rfdetr.matching import assigner as matching
from tests.factory import SIDE, project_config, write_coco
from tests.fixtures import REPOSITORY

CONV = 'neck.stages.0.c2f.cv1.conv'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(9))
    return folder


class Poison(Hook):
    """Make one iteration's loss, weight or gradient not finite."""

    def __init__(self, kind, iteration):
        self.kind, self.iteration = kind, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != self.iteration:
            return
        model = getattr(runner.model, 'module', runner.model)
        weight = model.get_submodule(CONV).weight
        if self.kind == 'weight':
            weight.data[0] = float('nan')
        elif self.kind == 'gradient':
            self.handle = weight.register_hook(lambda grad: grad * float('inf'))
        else:
            self.handle = model.bbox_head.loss_bbox.register_forward_hook(
                lambda module, inputs, output: output * float('inf')
            )

    def after_train_iter(self, runner, *args, **kwargs):
        self.end(runner, self.iteration + 1)

    def end(self, runner, iteration):
        # Where the step was skipped, the accident is over.
        if runner.iter == iteration and hasattr(self, 'handle'):
            self.handle.remove()


def short_config(data, folder, **hook):
    """Multi-scale, dropout and steps of two batches, of which an epoch has five."""
    augmentation = dict(
        type='RFDETRBatchMultiScale',
        image_size=SIDE,
        size_divisor=8,
        offsets=(-1, 0, 1),
    )
    return project_config(
        data,
        folder,
        model=dict(
            backbone=dict(drop_path_rate=0.2),
            decoder=dict(dropout=0.1),
            data_preprocessor=dict(batch_augments=[augmentation]),
        ),
        optim_wrapper=dict(optimizer=dict(lr=1e-3), accumulative_counts=2),
        default_hooks=dict(
            param_scheduler=dict(type='RFDETRParamSchedulerHook'),
            non_finite=dict(type='RFDETRNonFiniteHook', **hook),
        ),
        log_level='WARNING',
    )


def build(data, folder, kind, iteration, **hook):
    runner = Runner.from_cfg(short_config(data, folder, **hook))
    runner.register_hook(Poison(kind, iteration), 'HIGHEST')
    return runner


def steps(runner):
    states = runner.optim_wrapper.optimizer.state.values()
    return max((int(state['step']) for state in states), default=0)


EXPLANATIONS = {
    'weight': f'first module with an output not finite: {CONV}',
    'loss': 'first module with an output not finite: bbox_head.loss_bbox',
    'gradient': f'gradients that are not finite: {CONV}.weight',
}


@pytest.mark.parametrize('kind', EXPLANATIONS)
def test_a_run_stops_before_the_step(kind, data, tmp_path):
    runner = build(data, tmp_path, kind, 2)
    with pytest.raises(NonFiniteError) as caught:
        runner.train()
    message = str(caught.value)
    # Iterations 3 and 4 make the second step.
    assert 'Iteration 4, epoch 1' in message
    assert EXPLANATIONS[kind] in message
    assert 'loss_bbox' in message and '.png)' in message
    assert steps(runner) == 1


def test_the_dump_holds_what_is_needed_to_try_again(data, tmp_path):
    runner = build(data, tmp_path, 'loss', 2)
    with pytest.raises(NonFiniteError, match='Dump: .*non_finite_iter_4_rank_0.pth'):
        runner.train()
    dump = load_checkpoint_file(tmp_path / 'non_finite_iter_4_rank_0.pth')
    for name, value in runner.model.state_dict().items():
        assert torch.equal(dump['state_dict'][name], value)
    assert [batch['iteration'] for batch in dump['batches']] == [2, 3]
    for batch in dump['batches']:
        assert len(batch['inputs']) == len(batch['samples']) == 2
        assert batch['samples'][0]['metainfo']['img_path'].endswith('.png')
        assert 'torch' in batch['random_state']


def test_bad_matching_costs_stop_a_run(data, tmp_path, monkeypatch):
    costs = matching.pair_costs
    calls = []

    def bad_once(*args, **kwargs):
        calls.append(args)
        return costs(*args, **kwargs) * (float('nan') if len(calls) == 3 else 1)

    monkeypatch.setattr(matching, 'pair_costs', bad_once)
    cfg = short_config(data, tmp_path)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(
        NonFiniteError, match='Iteration 4(.|\n)*matching costs are not'
    ):
        runner.train()
    assert steps(runner) == 1
    # Computed again, the first of the two batches meets such costs once more.
    calls.clear()
    calls += [(), ()]
    _, *batches = replay(cfg, tmp_path / 'non_finite_iter_4_rank_0.pth')
    assert ['matching costs are not' in str(found) for _, found in batches] == [1, 0]
    assert [found.is_finite for _, found in batches] == [False, True]


def test_an_image_that_is_not_finite_is_named(data, tmp_path):
    class Blind(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            data_batch['inputs'][1] = data_batch['inputs'][1] * float('nan')

    runner = Runner.from_cfg(short_config(data, tmp_path))
    runner.register_hook(Blind(), 'HIGHEST')
    with pytest.raises(NonFiniteError, match='the images have values that are not'):
        runner.train()


# What the tool computes again


@pytest.fixture
def replayed(data, tmp_path, monkeypatch, capsys):
    """Stop a run with a bad weight or loss, and give what the tool says of its dump."""

    def run(kind):
        cfg = short_config(data, tmp_path)
        cfg.default_hooks.drop_schedule = dict(type='RFDETRDropScheduleHook')
        cfg.dump(tmp_path / 'mine.py')
        cfg = Config.fromfile(tmp_path / 'mine.py')
        runner = Runner.from_cfg(cfg)
        runner.register_hook(Poison(kind, 2), 'HIGHEST')
        with pytest.raises(NonFiniteError) as caught:
            runner.train()
        *_, command, _ = str(caught.value).splitlines()
        python, *arguments = command.split()
        assert python == 'python'
        arguments[0] = str(REPOSITORY / arguments[0])
        monkeypatch.setattr(sys, 'argv', arguments)
        capsys.readouterr()
        runpy.run_path(arguments[0], run_name='__main__')
        return str(caught.value), capsys.readouterr().out

    return run


def terms_in(text):
    return re.findall('loss terms: (.*)', text)


def test_a_dump_is_computed_again(replayed):
    message, printed = replayed('weight')
    assert f'Weights that are not finite: {CONV}.weight\n' in printed
    assert printed.count('NOT finite') == 2
    assert printed.count(EXPLANATIONS['weight']) == 2
    assert 'gradients that are not finite' in printed
    # The same images, in the same order, with the same terms.
    for pattern in ('images: (.*)', 'loss terms: (.*)'):
        assert re.findall(pattern, printed) == re.findall(pattern, message)


def test_a_dump_meets_the_same_random_numbers(replayed):
    # Dropout, drop path and multi-scale; the accident itself is not in the dump.
    message, printed = replayed('gradient')
    assert 'loss_bbox' in message and 'NOT' not in printed
    assert terms_in(printed) == terms_in(message)


def test_a_dump_holds_masks():
    sample = DetDataSample(metainfo=dict(img_id=3))
    masks = BitmapMasks(np.eye(4, dtype=np.uint8)[None], 4, 4)
    sample.gt_instances = InstanceData(
        bboxes=torch.rand(1, 4), labels=torch.tensor([2]), masks=masks
    )
    again = restore_sample(serialise_sample(sample))
    assert again.img_id == 3
    assert torch.equal(again.gt_instances.masks, torch.eye(4, dtype=torch.bool)[None])
    assert torch.equal(again.gt_instances.bboxes, sample.gt_instances.bboxes)
    assert again.gt_instances.labels.tolist() == [2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(batches=None), 'is no dump of RFDETRNonFiniteHook'),
        (dict(state_dict={'weight': torch.ones(1)}), 'do not go with model'),
    ],
)
def test_what_is_no_dump_is_refused(changes, message, data, tmp_path):
    weights = {'weight': torch.ones(1)}
    meta = dict(rates={}, accumulative_counts=1)
    dump = dict(state_dict=weights, batches=[], meta=meta)
    dump = {key: changes.get(key, value) for key, value in dump.items()}
    torch.save({k: v for k, v in dump.items() if v is not None}, tmp_path / 'dump.pth')
    with pytest.raises(CheckpointError, match=message):
        list(replay(short_config(data, tmp_path), tmp_path / 'dump.pth'))


BATCH = dict(iteration=0, inputs=[], samples=[], random_state={})


@pytest.mark.parametrize(
    'changes',
    [
        dict(meta='x'),
        dict(state_dict=1),
        dict(batches=1),
        dict(batches=[1]),
        dict(batches=[dict(BATCH, inputs='x')]),
        dict(batches=[dict(BATCH, samples=1)]),
        dict(batches=[dict(BATCH, random_state=[])]),
    ],
)
def test_a_dump_with_other_entries_is_refused(changes, data, tmp_path):
    cfg = short_config(data, tmp_path)
    init_default_scope('mmdet')
    weights = MODELS.build(cfg.model).state_dict()
    meta = dict(rates={}, accumulative_counts=1)
    dump = dict(dict(state_dict=weights, batches=[BATCH], meta=meta), **changes)
    torch.save(dump, tmp_path / 'dump.pth')
    with pytest.raises(CheckpointError):
        list(replay(cfg, tmp_path / 'dump.pth'))


# float16


def half_precision(data, folder):
    cfg = short_config(data, folder)
    cfg.model.precision = dict(device_type='cpu', dtype='float16')
    cfg.optim_wrapper.update(accumulative_counts=1, loss_scale=dict(init_scale=1024.0))
    return cfg


def test_an_overflow_in_float16_is_left_to_the_loss_scale(data, tmp_path):
    runner = Runner.from_cfg(half_precision(data, tmp_path))
    poison = Poison('gradient', 2)
    poison.after_train_iter = lambda *args, **kwargs: poison.end(runner, 2)
    runner.register_hook(poison, 'HIGHEST')
    runner.train()
    assert steps(runner) == 4  # of five
    assert runner.optim_wrapper.loss_scaler.get_scale() == 512
    assert all(value.isfinite().all() for value in runner.model.parameters())


def test_a_loss_scale_that_is_used_up_stops_the_run(data, tmp_path):
    cfg = half_precision(data, tmp_path)
    cfg.optim_wrapper.loss_scale.init_scale = 2.0**-20
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Poison('gradient', 1), 'HIGHEST')
    with pytest.raises(NonFiniteError, match='Iteration 3(.|\n)*is used up'):
        runner.train()


def test_a_loss_that_is_not_finite_in_float16_stops_the_run(data, tmp_path):
    runner = Runner.from_cfg(half_precision(data, tmp_path))
    runner.register_hook(Poison('loss', 2), 'HIGHEST')
    with pytest.raises(NonFiniteError, match='Iteration 3'):
        runner.train()


def test_steps_may_be_skipped_up_to_a_number(data, tmp_path):
    runner = build(data, tmp_path, 'loss', 2, skip=1)
    lines = []
    runner.logger.warning = lines.append
    runner.train()
    assert runner.iter == 5
    assert steps(runner) == 2  # of three
    (line,) = [line for line in lines if 'not finite' in line]
    assert '1 of at most 1' in line
    assert all(value.isfinite().all() for value in runner.model.parameters())


def test_another_wrapper_is_warned_of(data, tmp_path):
    cfg = short_config(data, tmp_path)
    cfg.optim_wrapper.type = 'OptimWrapper'
    runner = Runner.from_cfg(cfg)
    lines = []
    runner.logger.warning = lines.append
    runner.train()
    assert any('OptimWrapper cannot be watched' in line for line in lines)
