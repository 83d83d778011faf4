"""The runs of the precision tests, watched by the hook."""

from tests.test_precision import project
from tests.test_precision.project import run

__all__ = ['project_config', 'run']


def project_config(*args):
    """As of the precision tests, with the hook."""
    config = project.project_config(*args)
    config.default_hooks.precision = dict(type='RFDETRPrecisionHook')
    return config
