"""Detection as a single CUDA graph, recorded once for each shape of the batch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

WARM_UP = 3
"""Runs before a recording: kernels are chosen and compiled, constants are made."""


class DetectionGraphs:
    """Records a function of tensors when a shape is new, and replays it after that.

    Only constants may be read besides the arguments, and they must stay where they are
    in memory; the host must not read a result.

    Args:
        function: takes tensors, and returns tensors in tuples or dicts.
    """

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._graphs: dict[tuple, _Graph] = {}
        self._memory: tuple[int, int] | None = None

    def __call__(self, *inputs: Tensor):
        """Call the function; the results are new tensors."""
        key = tuple((x.shape, x.dtype, x.device) for x in inputs)
        if key not in self._graphs:
            # Graphs run one after the other, so they can share what they need between.
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            self._graphs[key] = _Graph(self._function, inputs, self._memory)
        return self._graphs[key](*inputs)

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
        with torch.cuda.graph(self._graph, pool=memory):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor):
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        # They lie where the next replay writes.
        return tree_map_only(Tensor, torch.clone, self._outputs)
