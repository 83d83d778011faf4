"""Keypoint Preview compared with the official package, stage by stage."""

import pytest

from tests.fixtures import needs_fixtures
from tests.test_models.test_fixture_parity import (
    check_train_stages,
    evaluate,
    test_eval_stages,  # noqa: F401
)

pytestmark = needs_fixtures


@pytest.fixture(scope='module')
def evaluated():
    return evaluate('keypoint')


@pytest.mark.long
def test_train_stages():
    check_train_stages('keypoint')
