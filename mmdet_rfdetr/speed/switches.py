"""What a detector can be switched to: compiled, deployed, recorded."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from ..errors import DeployedModelError, SettingError
from ..precision import PrecisionPolicy, WeightDtypes
from .compiled import Compilation
from .cuda_graphs import DetectionGraphs, StepGraphs, check_recordable
from .deployed import deploy

# The model that the present thread computes with.
_running = threading.local()


DEPLOYED = (
    'this model was switched to deploy and cannot be {}: its weights are folded. Build '
    'the model anew, and do it before switch_to_deploy()'
)


def as_step(method: Callable) -> Callable:
    """Let a method of ``Switches`` compute under the model's precision, and compiled.

    ``forward`` is not the only way in: wrappers such as mmdet's semi-supervised
    detectors call what lies behind it.
    """

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with self._step():
            return method(self, *args, **kwargs)

    return run


class Switches(nn.Module):
    """The part of ``RFDETR`` that makes it faster, and guards what it can do then.

    Attributes:
        compilation: what of it is compiled, or None.
        deployed: whether :meth:`switch_to_deploy` was called.
        graphs: CUDA graphs of detections, or None.
        step_graphs: CUDA graphs of training steps, or None.
    """

    compilation: Compilation | None = None
    deployed: bool = False
    graphs: DetectionGraphs | None = None
    step_graphs: StepGraphs | None = None
    precision: PrecisionPolicy
    _dtypes: WeightDtypes | None = None

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Enter precision and compilation; inside of them nothing is left to do.

        Raises:
            PrecisionError: if weights were cast to a dtype that is not the policy's, by
                ``half()`` for example, or an autocast around differs from the policy.
        """
        outer = getattr(_running, 'model', None)
        if outer is self:
            yield
            return
        self._check_weights()
        compiled = self.compilation.step(self) if self.compilation else nullcontext()
        _running.model = self
        try:
            with self.precision.autocast(self.query_embedding.device), compiled:
                yield
        finally:
            _running.model = outer

    def _check_weights(self) -> None:
        if self._dtypes is None:
            self._dtypes = WeightDtypes(self)
        low = self.precision.resolve(self.query_embedding.device)
        self.precision.check_weights(
            self,
            dtypes=self._dtypes.now(),
            alternative=None if self.training else low,
            mixed=self.deployed,
        )

    def _set_switches(self, compile: dict | None, cuda_graphs: bool) -> None:
        """Do what a config says, when the model is built."""
        if compile is not None:
            self._compile(compile)
        if cuda_graphs:
            check_recordable(self)
            self.step_graphs = StepGraphs(self)

    def compile(self, **settings) -> None:
        """Have parts of the model compiled by ``torch.compile``, in place.

        Names, parameters and numbers stay what they are (``docs/performance.md``).
        A copy of the model is not compiled.

        Args:
            **settings: ``parts``, ``mode`` and ``dynamic`` of :class:`Compilation`.

        Raises:
            SettingError: if a setting is unknown.
        """
        self._compile(settings)

    def _compile(self, settings: dict) -> None:
        self.compilation = Compilation.from_config(settings)
        if self.step_graphs is not None:
            check_recordable(self)
        self.compilation.apply(self)
        for recorded in filter(None, (self.graphs, self.step_graphs)):
            recorded.forget()

    def _apply(self, *args, **kwargs) -> 'Switches':
        """Move or cast the weights; graphs read them where they were."""
        self._dtypes = None
        if self.graphs is not None:
            self.graphs.forget()
        return super()._apply(*args, **kwargs)

    def switch_to_deploy(self, *, cuda_graphs: bool = False) -> 'Switches':
        """Rearrange the weights for inference, for good; outputs stay the same.

        Call it when the weights are loaded and the model is on its device. From
        then on the model detects faster (``docs/performance.md``), but can no
        longer be trained, saved, or loaded with other weights.

        Args:
            cuda_graphs: on a GPU, record detection as one CUDA graph when a shape of
                the batch comes for the first time, and replay it from then on. Batches
                with padding, and other modes, run as without.

        Returns:
            The model itself, in evaluation mode.

        Raises:
            SettingError: if parts of the model record CUDA graphs of their own.
        """
        if cuda_graphs and self.compilation and self.compilation.records_graphs:
            raise SettingError(
                f'switch_to_deploy(cuda_graphs=True) records what model.compile='
                f'{self.compilation} records already: set model.compile.mode to None'
            )
        if cuda_graphs and self.graphs is None:
            self.graphs = DetectionGraphs(self._detect)
        if not self.deployed:
            device = self.query_embedding.device
            deploy(self.eval(), self.precision.resolve(device))
            self.deployed, self._dtypes = True, None
            if self.compilation is not None:
                self.compilation.apply(self)
        return self

    def train(self, mode: bool = True) -> 'Switches':
        """Switch between training and evaluation.

        Raises:
            DeployedModelError: if a deployed model is to be trained.
        """
        if mode and self.deployed:
            raise DeployedModelError(DEPLOYED.format('trained'))
        self._dtypes = None
        return super().train(mode)

    # Both are reached by PyTorch's and by mmengine's way of saving and loading.
    def _save_to_state_dict(self, *args, **kwargs) -> None:
        if self.deployed:
            raise DeployedModelError(DEPLOYED.format('saved'))
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        if self.deployed:
            raise DeployedModelError(DEPLOYED.format('loaded with weights'))
        super()._load_from_state_dict(*args, **kwargs)

    @contextmanager
    def without_graphs(self) -> Iterator[None]:
        """Run training steps kernel by kernel inside, so that modules can be seen."""
        graphs, self.step_graphs = self.step_graphs, None
        try:
            yield
        finally:
            self.step_graphs = graphs
