from tests.test_precision.conftest import pictures  # noqa: F401
