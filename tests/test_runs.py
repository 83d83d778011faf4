"""Tests do not see the runs of other tests in the same process."""

import pytest
from mmengine.logging import MMLogger


@pytest.mark.parametrize('test', ('first', 'second'))
def test_a_run_of_an_earlier_test_is_forgotten(test):
    # A name that was given before is a warning, and so an error.
    MMLogger.get_instance('run of one second', log_level='INFO')
