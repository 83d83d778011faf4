import numpy as np
import pytest

from mmdet_rfdetr.matching import RFDETRHungarianAssigner
from mmdet_rfdetr.matching.solver import SOLVERS, ScipySolver
from mmdet_rfdetr.speed import host_solver
from mmdet_rfdetr.speed.host_solver import HostSolver, _cheapest_queries


def random_costs(objects, groups, queries, levels, seed):
    """Whole numbers below ``levels``: the fewer, the more ties."""
    shape = objects, groups, queries
    return np.random.default_rng(seed).integers(levels, size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ('objects', 'queries'), ((1, 7), (3, 40), (10, 20), (19, 20), (20, 20), (30, 20))
)
@pytest.mark.parametrize('levels', (2, 5, 30, 1000))
@pytest.mark.parametrize('threaded', (1, 10**9))
def test_pairs_and_ties_are_those_of_scipy(
    objects, queries, levels, threaded, monkeypatch
):
    monkeypatch.setattr(host_solver, 'THREADED_OBJECTS', threaded)
    monkeypatch.setattr('torch.get_num_threads', lambda: 2)
    problems = [random_costs(objects, 40, queries, levels, seed) for seed in range(5)]
    expected, found = ScipySolver().solve(problems), HostSolver().solve(problems)
    np.testing.assert_equal(found, expected)


def test_it_is_what_the_assigner_takes():
    assert isinstance(RFDETRHungarianAssigner()._solver, HostSolver)
    assert SOLVERS['scipy'] is HostSolver


def test_only_groups_whose_objects_clash_are_handed_to_the_solver():
    costs = np.ones((2, 3, 4), np.float32)
    costs[0, :, 3] = 0
    costs[1, (0, 1, 2), (3, 1, 0)] = 0
    queries, objects, clashing = _cheapest_queries(costs)
    assert clashing.tolist() == [0]
    assert queries[1:].tolist() == [[1, 3], [0, 3]]
    assert objects[1:].tolist() == [[1, 0], [1, 0]]


def test_nothing_to_solve():
    assert HostSolver().solve([]) == []
