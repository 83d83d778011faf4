"""A super-net learns what its sub-nets learn alone in a third of its steps."""

import pytest

from tests.test_search import learning


@pytest.mark.slow
def test_a_super_net_is_worth_its_steps(tmp_path):
    found = learning.main(tmp_path)
    shared, alone = found['shared'], found['alone']
    for name, ours, theirs in zip(found['names'], shared, alone, strict=True):
        assert ours >= 0.95 * theirs, name
    assert learning.tau(alone, shared) >= 0.6
    assert found['tuned'] > shared[-1] + learning.TIE
