"""Detection, or a training step, as CUDA graphs, recorded once for each shape.

Replaying a graph takes the host next to nothing, however many kernels it holds. No
module is called then, so hooks on parts of the model see nothing of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..errors import ExplainedError, RecordingError, SettingError
from ..models.log_figures import Losses
from ..ops.constants import COLLECTIONS
from .device_solver import PaddedTargets

WARM_UP = 3
"""Runs before a recording: kernels are chosen and compiled, constants are made."""


@contextmanager
def collect_constants() -> Iterator[list]:
    """Collect the constants that are used inside."""
    COLLECTIONS.append(used := [])
    try:
        yield used
    finally:
        COLLECTIONS.pop()


@contextmanager
def recording(switch: str) -> Iterator[None]:
    """Record inside.

    Raises:
        RecordingError: naming the switch to leave out.
    """
    # A weight that autocast has cast and kept would be gone at the next replay.
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    except ExplainedError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition('\n')[0]
        raise RecordingError(
            f'{switch}, and recording failed: {reason}. A part of the model may read '
            'numbers on the host, or copy them from there. Start anew without it.'
        ) from error
    finally:
        torch.set_autocast_cache_enabled(cached)


def _precision() -> tuple:
    """The autocast that a recording is made under."""
    return torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')


class DetectionGraphs:
    """Records a function of tensors when a shape is new, and replays it after that.

    Only constants may be read besides the arguments, and they must stay where they are
    in memory; the host must not read a result.

    Args:
        function: takes tensors, and returns tensors in tuples or dicts.
        settings: gives the values that it depends on besides.
    """

    def __init__(self, function: Callable, settings: Callable[[], tuple]) -> None:
        self._function = function
        self._settings = settings
        self._graphs: dict[tuple, _Graph] = {}
        self._memory: tuple[int, int] | None = None

    def __call__(self, *inputs: Tensor):
        """Call the function; the results are new tensors."""
        key = _precision(), self._settings()
        key += tuple((x.shape, x.dtype, x.device) for x in inputs)
        if key not in self._graphs:
            # Graphs run one after the other, so they can share what they need between.
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            with recording('switch_to_deploy(cuda_graphs=True)'):
                self._graphs[key] = _Graph(self._function, inputs, self._memory)
        return self._graphs[key](*inputs)

    def forget(self) -> None:
        """Record anew from now on, because the constants moved or changed."""
        self._graphs, self._memory = {}, None

    def __getstate__(self) -> dict:
        """For copies, which record anew."""
        return dict(vars(self), _graphs={}, _memory=None)


class _Graph:
    """A recording for inputs of given shapes."""

    def __init__(
        self, function: Callable, inputs: tuple[Tensor, ...], memory: tuple[int, int]
    ) -> None:
        self._inputs = [x.clone() for x in inputs]
        device = inputs[0].device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(self._graph, pool=memory)
        with recording, collect_constants() as self._constants:
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor):
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        # They lie where the next replay writes.
        return tree_map_only(Tensor, torch.clone, self._outputs)


def check_recordable(model: nn.Module) -> None:
    """Refuse an ``RFDETR`` whose training step cannot be recorded.

    Raises:
        SettingError: naming the switch that does not go with it.
    """
    assigner = getattr(model.bbox_head, 'assigner', None)
    compilation = model.compilation
    drops = any(getattr(m, 'drop_prob', 0) for m in model.backbone.modules())
    for unfit, key in (
        *((True, f'{name}=None') for name in model.bbox_head.task_heads),
        (getattr(model.backbone, 'with_cp', False), 'backbone.with_cp=False'),
        (drops, 'backbone.drop_path_rate=0'),
        (compilation and compilation.records_graphs, 'compile.mode=None'),
        (
            assigner is not None and assigner.solver != 'device',
            'train_cfg.assigner.solver=device',
        ),
    ):
        if unfit:
            raise SettingError(
                f'model.cuda_graphs=True goes with model.{key} only: set it so, or '
                'leave cuda_graphs out'
            )


class StepGraphs:
    """Records the losses of a batch and their gradients when a shape is new.

    Parameters may change between steps, but must stay where they are in memory; when
    they moved, everything is recorded anew.

    Args:
        model: an ``RFDETR`` for detection whose matching pads the objects.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._places: tuple[int, ...] = ()
        self._steps: dict[tuple, RecordableStep] = {}
        self._memory: tuple[int, int] | None = None

    def __call__(self, images: Tensor, targets: PaddedTargets) -> dict[str, Tensor]:
        """Compute the loss terms, to be propagated back before the next call.

        Args:
            images: (B, 3, H, W) without padding.
            targets: padded to the same number of objects in each image.

        Raises:
            RecordingError: in data-parallel training, or if it cannot be recorded.
        """
        if get_world_size() > 1:
            raise RecordingError(
                'model.cuda_graphs=True records the step of a single process: leave it '
                'out to train with several'
            )
        places = tuple(parameter.data_ptr() for parameter in self._model.parameters())
        if places != self._places:
            self._places, self._steps, self._memory = places, {}, None
        key = _precision(), self._model.step_settings()
        key += images.shape, images.dtype, targets.counts
        inputs = images, targets.labels, targets.boxes, targets.valid
        if key not in self._steps:
            # Steps follow each other, so they can share what they need in between.
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            silence_streams_of_graphs()
            with recording('model.cuda_graphs=True'):
                self._steps[key] = torch.cuda.make_graphed_callables(
                    RecordableStep(self._model, targets.counts),
                    tuple(x.clone() for x in inputs),
                    num_warmup_iters=WARM_UP,
                    allow_unused_input=True,
                    pool=self._memory,
                )
        own_gradients(self._model)
        step = self._steps[key]
        terms, figures = step(*inputs)
        # They lie where the next replay writes; losses are used up before.
        return step.losses(terms, figures.detach().clone())

    def forget(self) -> None:
        """Record anew from now on, because the model changed."""
        self._places = ()

    def __getstate__(self) -> dict:
        """For copies, which record anew."""
        return dict(vars(self), _places=(), _steps={}, _memory=None)


class RecordableStep(nn.Module):
    """From tensors to tensors: what is recorded.

    Attributes:
        names: of the loss terms, and of the figures for the log.
        constants: that were read, and are read wherever the step is replayed.
    """

    def __init__(self, model: nn.Module, counts: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.counts = counts
        self.names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.constants: list = []

    def forward(
        self, images: Tensor, labels: Tensor, boxes: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss terms; figures, and whether a cost was not finite, as 0 or 1."""
        targets = PaddedTargets(labels, boxes, self.counts, valid=valid)
        with collect_constants() as self.constants:
            losses = self.model.loss_of_targets(images, targets)
        self.names = tuple(losses), tuple(losses.figures)
        figures = *losses.figures.values(), losses.non_finite_costs.float()
        return torch.stack([*losses.values()]), torch.stack(figures)

    def losses(self, terms: Tensor, figures: Tensor) -> Losses:
        """What a model returns, from what :meth:`forward` returned."""
        names, figure_names = self.names
        *figures, non_finite_costs = figures.unbind()
        return Losses(
            dict(zip(names, terms.unbind(), strict=True)),
            figures=dict(zip(figure_names, figures, strict=True)),
            non_finite_costs=non_finite_costs.bool(),
        )


def own_gradients(model: nn.Module) -> None:
    """Move gradients from where a replay would overwrite them.

    What a replayed backward pass returns becomes ``.grad`` itself, if there was none.
    The next pass is to be added to it.
    """
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad.clone()


def silence_streams_of_graphs() -> None:
    """Keep torch from warning of the streams of CUDA graphs that it recorded itself.

    ``torch.cuda.make_graphed_callables`` records on a stream of its own, so the nodes
    that hand gradients to parameters belong to that one. Since 2.10 torch warns of it
    in every run that replays such graphs; the extra wait it warns of is one event.
    """
    switch = 'set_warn_on_accumulate_grad_stream_mismatch'
    if hasattr(torch.autograd.graph, switch):
        getattr(torch.autograd.graph, switch)(False)
