"""What is not finite stops the run before the optimizer step, and is explained."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from mmdet_rfdetr.training.non_finite import NonFiniteError
from tests.test_training.tiny import write_coco

from .project import config

CONV = 'neck.stages.0.c2f.cv1.conv'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, count=9)
    return folder


class Poison(Hook):
    """Make one iteration's loss, weight or gradient not finite."""

    def __init__(self, kind, iteration):
        self.kind, self.iteration = kind, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != self.iteration:
            return
        weight = runner.model.get_submodule(CONV).weight
        if self.kind == 'weight':
            weight.data[0] = float('nan')
        elif self.kind == 'gradient':
            self.handle = weight.register_hook(lambda grad: grad * float('inf'))
        else:
            self.handle = runner.model.bbox_head.loss_bbox.register_forward_hook(
                lambda module, inputs, output: output * float('inf')
            )

    def after_train_iter(self, runner, *args, **kwargs):
        # Where the step was skipped, the accident is over.
        if runner.iter == self.iteration + 1:
            self.handle.remove()


def short_config(data, folder, **hook):
    cfg = config(data, folder)
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.non_finite = dict(type='RFDETRNonFiniteHook', **hook)
    return cfg


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
