"""What is not finite in one of two processes is the business of both."""

import pytest
import torch

from mmdet_rfdetr.checkpoints import load_checkpoint_file
from tests.factory import write_coco
from tests.test_command_line.data_parallel import train

from .test_non_finite import Poison, short_config, steps


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'coco'
    write_coco(folder, range(9))
    return folder


class PoisonSecond(Poison):
    """Make a loss of the second process not finite."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.rank == 1:
            super().before_train_iter(runner, batch_idx, data_batch)

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.rank == 1:
            super().after_train_iter(runner, *args, **kwargs)


def test_what_is_not_finite_in_one_process_ends_both_alike(data, tmp_path):
    codes, said, _ = train(short_config(data, tmp_path), PoisonSecond('loss', 1))
    assert codes == [1, 1], said
    first, second = (text[text.index('error: ') :] for text in said)
    # The same images and terms, and each process its own dump.
    assert first.replace('rank_0', 'rank_1') == second
    assert 'images: ' in first
    assert len(list(tmp_path.glob('non_finite_iter_2_rank_?.pth'))) == 2


@pytest.mark.long
def test_what_is_not_finite_in_one_process_is_skipped_by_both(data, tmp_path):
    def check(runner):
        assert steps(runner) == 1  # of two; each is of two iterations
        weights = torch.cat([p.detach().flatten() for p in runner.model.parameters()])
        other = weights.clone()
        torch.distributed.broadcast(other, 1)
        assert torch.equal(weights, other) and weights.isfinite().all()

    codes, said, _ = train(
        short_config(data, tmp_path, skip=1), PoisonSecond('loss', 0), check
    )
    assert codes == [0, 0], said
    assert load_checkpoint_file(tmp_path / 'epoch_1.pth')['meta']['iter'] == 3
