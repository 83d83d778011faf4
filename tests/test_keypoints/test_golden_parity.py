"""The comparisons of detectors with the official numbers, of a model with keypoints."""

import pytest

from tests.test_models.test_golden_parity import (  # noqa: F401
    test_eval_stages,
    test_the_cases_reach_every_parameter,
    test_train_stages,
)


@pytest.fixture(scope='module')
def name():
    return 'keypoints'
