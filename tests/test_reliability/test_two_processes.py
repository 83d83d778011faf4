"""Training in two processes: as one with the joined batch, and together to the end."""

import json
import os
import re
import signal

import pytest
import torch
from mmengine.hooks import Hook

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from tests.factory import build_model, write_coco
from tests.interpreter import fork_together
from tests.test_command_line.data_parallel import train

from .project import short_config
from .two_processes import CASES, TASKS, build, gradients, joined, write_gradients


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """What two processes computed, for each of them."""
    folder = tmp_path_factory.mktemp('two')
    codes, said = fork_together(write_gradients, folder, folder=folder)
    assert codes == [0, 0], said
    return [torch.load(folder / f'rank{rank}.pth') for rank in (0, 1)]


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('task', TASKS)
def test_gradients_are_those_of_the_joined_batch(task, case, results):
    model = build(task)
    loss, expected = gradients(model, model, joined(case))
    losses = [result[task, case][0] for result in results]
    found, other = (result[task, case][1] for result in results)
    # Divided by the objects of all processes, halves make a whole.
    share = 1.0
    if case == 'no objects at all':
        share = 0.5  # the smallest denominator is one, in each process
    torch.testing.assert_close(sum(losses) / 2, share * loss, rtol=1e-5, atol=0)
    for name, gradient in found.items():
        assert gradient is not None, f'{name} has no part in the loss'
        assert torch.equal(gradient, other[name])
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(
            gradient, share * expected[name], rtol=1e-4, atol=1e-5 * scale, msg=name
        )


# One of the processes meets with an accident


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(9))
    return folder


class Accident(Hook):
    """What happens to the second process before its second iteration."""

    def __init__(self, kind):
        self.kind = kind

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank != 1 or runner.iter != 1:
            return
        if self.kind == 'raises':
            runner.model.forward = self.fail
        elif self.kind == 'stops':
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def fail(*args, **kwargs):
        raise IndexError('an accident')


def train_two(data, folder, hook, check=lambda runner: None):
    """Train in two processes, of which one may hang for ever.

    Returns:
        The exit codes, what each process said, and the seconds that it took.
    """
    return train(short_config(data, folder), hook, check)


@pytest.mark.parametrize(
    'kind', ['is killed', 'raises', pytest.param('stops', marks=pytest.mark.long)]
)
def test_the_other_process_ends_with_a_sentence(kind, data, tmp_path):
    codes, said, seconds = train_two(data, tmp_path, Accident(kind))
    assert codes[0] == 1, said[0]
    assert 'error: another process of this run has ended' in said[0]
    assert 'env_cfg.dist_cfg.timeout' in said[0]
    assert seconds < 200  # a machine may be busy
    if kind == 'raises':
        assert codes[1] == 2
        assert 'an accident' in said[1]
    assert not (tmp_path / 'epoch_1.pth').exists()


class RuinWeights(Hook):
    """Make the moments of the optimizer not finite before the last step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2 and runner.rank == 0:
            for state in runner.optim_wrapper.optimizer.state.values():
                state['exp_avg'].fill_(float('nan'))


@pytest.mark.long
def test_ruined_weights_are_written_by_none_and_end_both(data, tmp_path):
    codes, said, _ = train_two(data, tmp_path, RuinWeights())
    assert codes == [1, 1], said
    first, second = (text[text.index('error: ') :] for text in said)
    assert first == second
    assert 'are not finite any more' in first
    assert not list(tmp_path.glob('*.pth'))


class OtherFolder(Hook):
    """The second process does not find the file that the first one loads."""

    def before_run(self, runner):
        if runner.rank == 1:
            runner._load_from = None


def test_processes_that_find_different_files_do_not_begin(data, tmp_path):
    cfg = short_config(data, tmp_path)
    cfg.load_from = f'{tmp_path}/weights.pth'
    changed = build_model(**{'backbone.drop_path_rate': 0.2})
    torch.save(changed.state_dict(), cfg.load_from)
    codes, said, _ = train(cfg, OtherFolder())
    assert codes == [1, 1], said
    begins = r'epoch 0, iteration 0, 9 images, weights with the checksum (\w{8})'
    for text in said:
        first, second = re.findall(begins, text)
        assert first != second
        assert 'do not begin alike' in text


# Another number of processes


class SeenImages(Hook):
    """Write down the images of each iteration; die before one of them."""

    def __init__(self, last=None):
        self.last = last

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        images = [sample.img_id for sample in data_batch['data_samples']]
        with open(f'{runner.work_dir}/images.txt', 'a') as file:
            file.write(json.dumps([runner.iter, images]) + '\n')


def seen_images(folder):
    """The images of each iteration, of all processes together."""
    iterations = {}
    for line in (folder / 'images.txt').read_text().splitlines():
        number, images = json.loads(line)
        iterations.setdefault(number, []).extend(images)
    return [sorted(iterations[number]) for number in sorted(iterations)]


@pytest.mark.long
def test_two_processes_continue_what_one_began(tmp_path):
    write_coco(tmp_path / 'data', range(8))
    folder = tmp_path / 'work'
    folder.mkdir()

    def cfg(batch_size, **changes):
        cfg = short_config(tmp_path / 'data', folder)
        cfg.train_dataloader.batch_size = batch_size
        cfg.train_cfg.max_epochs = 3
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1, save_best=None)
        cfg.custom_hooks = []
        cfg.merge_from_dict(changes)
        return cfg

    # Two iterations are an epoch; it dies in the midst of the second.
    codes, said, _ = train(cfg(4), SeenImages(last=3), processes=1)
    assert codes == [-signal.SIGKILL], said
    codes, said, _ = train(cfg(2, resume=True), SeenImages())
    assert codes == [0, 0], said
    assert 'written by 1 process, and this run has 2' in said[0]

    seed = load_checkpoint_file(folder / 'iter_6.pth')['training_state']['loop']
    seed = seed['ranks'][0]['sampler_seed']
    expected = []
    for epoch in range(3):
        generator = torch.Generator().manual_seed(seed + epoch)
        order = torch.randperm(8, generator=generator).tolist()
        expected += [sorted(order[:4]), sorted(order[4:])]
    assert seen_images(folder) == expected
