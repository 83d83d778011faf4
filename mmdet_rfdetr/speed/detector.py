"""``RFDETR`` with switches for speed: compiled, deployed, recorded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor
from torch.utils._pytree import tree_map

from .. import models
from ..errors import DeployedModelError, SettingError
from ..models.detections import Detections, box_scales
from ..models.memory import has_padding
from ..models.steps import as_step
from .compiled import Compilation
from .cuda_graphs import DetectionGraphs, StepGraphs, check_recordable
from .deployed import deploy
from .device_solver import PaddedTargets

DEPLOYED = (
    'this model was switched to deploy and cannot be {}: its weights are folded. Build '
    'the model anew, and do it before switch_to_deploy()'
)


@MODELS.register_module(name='RFDETR', force=True)
class RFDETR(models.RFDETR):
    """The same detector, with switches that make it faster.

    It takes the registered name of the class that it inherits from.

    Args:
        compile: arguments of :meth:`compile`, None compiles nothing.
        cuda_graphs: on a GPU, record network, matching and losses of a training step,
            and their backward pass, as CUDA graphs when a shape is new; see
            ``docs/performance.md``. Detection only, by one process.
        **model: arguments of :class:`mmdet_rfdetr.models.RFDETR`.

    Attributes:
        compilation: what of it is compiled, or None.
        deployed: whether :meth:`switch_to_deploy` was called.
        graphs: CUDA graphs of detections, or None.
        step_graphs: CUDA graphs of training steps, or None.

    Raises:
        SettingError: if switches do not go together.
    """

    compilation: Compilation | None = None
    deployed: bool = False
    graphs: DetectionGraphs | None = None
    step_graphs: StepGraphs | None = None

    def __init__(
        self, *, compile: dict | None = None, cuda_graphs: bool = False, **model
    ) -> None:
        super().__init__(**model)
        if compile is not None:
            self._compile(compile)
        if cuda_graphs:
            check_recordable(self)
            self.step_graphs = StepGraphs(self)

    @contextmanager
    def step_context(self) -> Iterator[None]:
        """Enter precision and compilation."""
        with super().step_context():
            if self.compilation is None:
                yield
            else:
                with self.compilation.step(self):
                    yield

    def step_settings(self) -> tuple:
        """Plain values that may change from step to step, and with them what runs."""
        backbone = self.backbone
        sizes = (getattr(backbone, key, None) for key in ('patch_size', 'num_windows'))
        return *sizes, self.decoder.num_layers, self.num_queries

    # Training steps as CUDA graphs

    @as_step
    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Compute the loss terms; arguments and result are mmdet's."""
        recorded = self.step_graphs is not None and batch_inputs.is_cuda
        if recorded and self.training and torch.is_grad_enabled():
            targets = self.recordable_targets(batch_data_samples)
            if targets is not None:
                return self.step_graphs(batch_inputs, targets)
        return super().loss(batch_inputs, batch_data_samples)

    def recordable_targets(
        self, batch_data_samples: SampleList
    ) -> PaddedTargets | None:
        """Objects of a batch, padded; None if it cannot be recorded."""
        if has_padding(batch_data_samples):
            return None
        targets = self.bbox_head.get_targets(batch_data_samples)
        targets = self.bbox_head.assigner.prepare(targets, self.num_queries)
        return targets if isinstance(targets, PaddedTargets) else None

    @as_step
    def loss_of_targets(
        self, batch_inputs: Tensor, targets: PaddedTargets
    ) -> dict[str, Tensor]:
        """:meth:`loss` of images without padding, and objects that are joined."""
        stages = self._stages(batch_inputs, None)
        return self.bbox_head.loss_by_feat(stages, targets)

    @contextmanager
    def eagerly(self) -> Iterator[None]:
        """Run training steps kernel by kernel inside, so that modules can be seen."""
        graphs, self.step_graphs = self.step_graphs, None
        try:
            yield
        finally:
            self.step_graphs = graphs

    # Detections as CUDA graphs

    @as_step
    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> SampleList:
        """Detect; arguments and result are mmdet's."""
        recorded = self.graphs is not None and batch_inputs.is_cuda
        if not recorded or has_padding(batch_data_samples):
            return super().predict(batch_inputs, batch_data_samples, rescale)
        metas = [sample.metainfo for sample in batch_data_samples]
        scales = box_scales(metas, batch_inputs.device, rescale)
        detections, tasks = self.graphs(batch_inputs, scales)
        results = self.bbox_head.results(detections, tasks, metas, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def detect(
        self, batch_inputs: Tensor, scales: Tensor
    ) -> tuple[Detections, dict[str, Sequence]]:
        """Detections of images without padding, and what task heads made for them."""
        stages = self._stages(batch_inputs, None, last_only=True)
        return self.bbox_head.detections(stages, scales), stages.tasks

    @as_step
    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> dict:
        """Compute the raw outputs; see :meth:`forward`."""
        results = super()._forward(batch_inputs, batch_data_samples)
        if self.compilation is not None and self.compilation.records_graphs:
            # They lie where the next step writes; losses and detections do not.
            return tree_map(torch.clone, results)
        return results

    # Compiled parts

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

    # Weights for inference alone

    def switch_to_deploy(self, *, cuda_graphs: bool = False) -> 'RFDETR':
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
            self.graphs = DetectionGraphs(self.detect, self.step_settings)
        if not self.deployed:
            device = self.query_embedding.device
            deploy(self.eval(), self.precision.resolve(device))
            self.deployed = self.mixed_weights = True
            self._dtypes = None
            if self.compilation is not None:
                self.compilation.apply(self)
        return self

    def _apply(self, *args, **kwargs) -> 'RFDETR':
        """Move or cast the weights; graphs read them where they were."""
        if self.graphs is not None:
            self.graphs.forget()
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> 'RFDETR':
        """Switch between training and evaluation.

        Raises:
            DeployedModelError: if a deployed model is to be trained.
        """
        if mode and self.deployed:
            raise DeployedModelError(DEPLOYED.format('trained'))
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
