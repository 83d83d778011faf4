"""One training run for a family of models: sub-nets that share all weights."""

from . import supernet, training, validation  # noqa: F401
from .space import SearchSpace, Subnet

__all__ = ['SearchSpace', 'Subnet']
