"""Parts of a detector compiled in place by ``torch.compile``.

A compiled part keeps its class, its name and its parameters: checkpoints, optimizer
groups, EMA copies and data-parallel wrappers do not see it. What lies between the
parts stays as it is, such as padding, matching, losses and final detections.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import nn

from ..errors import CompileError, SettingError
from ..ops import resampling
from .cuda_graphs import own_gradients

PARTS = ('backbone', 'neck', 'query_selection', 'decoder', 'bbox_head')
"""Modules of the detector that can be compiled, in the order in which they run."""

_RESIZE = resampling.resize_grid


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What is compiled, and how.

    Args:
        parts: some of ``PARTS``.
        mode: a mode of ``torch.compile``; ``'reduce-overhead'`` and
            ``'max-autotune'`` record CUDA graphs. None is its default.
        dynamic: True compiles for all sizes at once, False anew for every size, None
            for the first size and, when a second one comes, for all.

    Raises:
        SettingError: if a value is not one of these.
    """

    parts: Sequence[str] = PARTS
    mode: str | None = None
    dynamic: bool | None = None

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts or isinstance(self.parts, str):
            raise SettingError(
                f'model.compile.parts={self.parts!r}: give a list of some of {PARTS}'
            )
        modes = tuple(_options_of_modes())
        if self.mode is not None and self.mode not in modes:
            raise SettingError(
                f'model.compile.mode={self.mode!r}: choose None or one of {modes}'
            )
        if self.dynamic not in (None, True, False):
            raise SettingError(
                f'model.compile.dynamic={self.dynamic!r}: choose None, True or False'
            )

    @classmethod
    def from_config(cls, config: dict) -> 'Compilation':
        """Read ``model.compile``; an unknown key is an error."""
        known = [field.name for field in fields(cls)]
        if not isinstance(config, dict) or set(config) - set(known):
            raise SettingError(
                f'model.compile={config!r}: write None, or a dict of some of {known}'
            )
        return cls(**config)

    @property
    def records_graphs(self) -> bool:
        """Whether CUDA graphs are recorded where there is a GPU."""
        return self._options.get('triton.cudagraphs', False)

    @property
    def _options(self) -> dict:
        # One graph is recorded for each size: multi-scale training has eleven.
        return {
            **_options_of_modes().get(self.mode, {}),
            'triton.cudagraph_dynamic_shape_warn_limit': None,
        }

    def apply(self, model: nn.Module) -> None:
        """Have the parts compiled when they are called next."""
        # Its gradient cannot be compiled with sizes that change from step to step. To
        # say so imports the compiler, which takes a second and changes the process.
        resampling.resize_grid = torch.compiler.disable(_RESIZE)
        for name in self.parts:
            part = getattr(model, name)
            part.compile(dynamic=self.dynamic, options=self._options)

    @contextmanager
    def step(self, model: nn.Module) -> Iterator[None]:
        """Enter this for a forward pass of the model.

        What CUDA graphs gave in the last pass is lost, all but gradients, which the
        next backward pass may add to.

        Raises:
            CompileError: if a part cannot be compiled.
        """
        from torch._dynamo.exc import TorchDynamoException

        if self.records_graphs:
            own_gradients(model)
            torch.compiler.cudagraph_mark_step_begin()
        try:
            yield
        except TorchDynamoException as error:
            reason = str(error).strip().partition('\n')[0]
            raise CompileError(
                f'model.compile={self}, and torch.compile failed: {reason}. It needs a '
                'C++ compiler on a CPU and Triton on a GPU; to do without it add '
                '--cfg-options model.compile=None.'
            ) from error

    def __str__(self) -> str:
        return f'dict(parts={self.parts}, mode={self.mode!r}, dynamic={self.dynamic})'


def _options_of_modes() -> dict[str, dict]:
    """Options of each mode; the compiler is slow to import, and few models need it."""
    from torch._inductor import list_mode_options

    return list_mode_options()
