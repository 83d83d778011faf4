"""Every way into a detector leads through its precision policy."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from ..errors import SettingError
from ..precision import PrecisionPolicy
from ..precision.weights import WeightDtypes

# The model that the present thread computes with.
_running = threading.local()


def as_step(method: Callable) -> Callable:
    """Let a method of ``Steps`` compute under the model's precision.

    ``forward`` is not the only way in: wrappers such as mmdet's semi-supervised
    detectors call what lies behind it.
    """

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self._step():
            return method(self, *args, **kwargs)

    return run


class Steps(nn.Module):
    """The part of a detector that enters its precision, once a step.

    Attributes:
        precision: the policy.
        mixed_weights: whether some of the weights may have the dtype of the policy and
            the others float32.
    """

    precision: PrecisionPolicy
    mixed_weights: bool = False
    _dtypes: WeightDtypes | None = None

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Enter what a step runs in; inside of a step nothing is left to do.

        Raises:
            SettingError: if TorchScript's exporter to ONNX calls, whose files runtimes
                do not read.
            PrecisionError: if weights were cast to a dtype that is not the policy's, by
                ``half()`` for example, or an autocast around differs from the policy.
        """
        outer = getattr(_running, 'model', None)
        if outer is self:
            yield
            return
        if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():
            raise SettingError(
                'torch.onnx.export(dynamo=False) writes a file of this model that '
                'runtimes refuse: set dynamo=True'
            )
        if self._dtypes is None:
            self._dtypes = WeightDtypes(self)
        low = self.precision.resolve(self.query_embedding.device)
        self.precision.check_weights(
            self,
            dtypes=self._dtypes.now(),
            alternative=None if self.training else low,
            mixed=self.mixed_weights,
        )
        _running.model = self
        try:
            with self.step_context():
                yield
        finally:
            _running.model = outer

    def step_context(self) -> AbstractContextManager:
        """What a step runs in: the autocast of the policy."""
        return self.precision.autocast(self.query_embedding.device)

    def _apply(self, *args, **kwargs) -> 'Steps':
        """Move or cast the weights."""
        self._dtypes = None
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> 'Steps':
        """Switch between training and evaluation."""
        self._dtypes = None
        return super().train(mode)
