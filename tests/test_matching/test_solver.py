import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mmdet_rfdetr.matching.solver import _cheapest_queries, assign_groups


def random_costs(objects, groups, queries, levels, seed):
    """Whole numbers below ``levels``: the fewer, the more ties."""
    shape = objects, groups, queries
    return np.random.default_rng(seed).integers(levels, size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ('objects', 'queries'), ((1, 7), (3, 40), (10, 20), (19, 20), (20, 20), (30, 20))
)
@pytest.mark.parametrize('levels', (2, 5, 30, 1000))
def test_pairs_and_ties_are_those_of_the_solver(objects, queries, levels):
    problems = [random_costs(objects, 40, queries, levels, seed) for seed in range(5)]
    for costs, (rows, columns) in zip(problems, assign_groups(problems), strict=True):
        for group in range(costs.shape[1]):
            expected = linear_sum_assignment(costs[:, group].T)
            assert rows[group].tolist() == expected[0].tolist()
            assert columns[group].tolist() == expected[1].tolist()


def test_only_groups_whose_objects_clash_are_handed_to_the_solver():
    costs = np.ones((2, 3, 4), np.float32)
    costs[0, :, 3] = 0
    costs[1, (0, 1, 2), (3, 1, 0)] = 0
    queries, objects, clashing = _cheapest_queries(costs)
    assert clashing.tolist() == [0]
    assert queries[1:].tolist() == [[1, 3], [0, 3]]
    assert objects[1:].tolist() == [[1, 0], [1, 0]]


def test_nothing_to_solve():
    assert assign_groups([]) == []
