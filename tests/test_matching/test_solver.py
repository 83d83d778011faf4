import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mmdet_rfdetr.matching.solver import ScipySolver


@pytest.mark.parametrize(('objects', 'queries'), ((1, 7), (10, 20), (20, 20), (30, 20)))
def test_cheapest_pairs_of_every_group(objects, queries):
    shapes = [(objects, groups, queries) for groups in (3, 1)]
    random = np.random.default_rng(0)
    problems = [random.random(shape, np.float32) for shape in shapes]
    solutions = ScipySolver().solve(problems)
    for costs, (rows, columns) in zip(problems, solutions, strict=True):
        assert rows.shape == columns.shape == (costs.shape[1], min(objects, queries))
        assert (np.diff(rows) > 0).all()
        for group, (query, item) in enumerate(zip(rows, columns, strict=True)):
            best = costs[:, group][linear_sum_assignment(costs[:, group])].sum()
            assert costs[item, group, query].sum() == pytest.approx(best)


def test_nothing_to_solve():
    assert ScipySolver().solve([]) == []
