"""Training in two processes: as one with the joined batch, and together to the end."""

import pytest
import torch

from tests.interpreter import run_together

from .two_processes import CASES, TASKS, build, gradients, joined


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """What two processes computed, for each of them."""
    folder = tmp_path_factory.mktemp('two')
    worker = ['-m', 'tests.test_reliability.two_processes', folder]
    finished = run_together(worker)
    assert finished.returncode == 0, finished.stderr
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
