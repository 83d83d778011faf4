"""Finding out where the numbers of a training step stop being finite."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import list_names

BAD_MATCHING = 'matching costs are not finite'


@dataclass
class Diagnosis:
    """What the forward pass of a batch came to.

    Attributes:
        images: id and path of each image.
        terms: the loss terms.
        problems: what was not finite beside them, up to the gradients where those were
            computed.
    """

    images: list[str]
    terms: dict[str, float]
    problems: list[str]

    @property
    def is_finite(self) -> bool:
        """Whether everything is."""
        return not self.problems and all(map(math.isfinite, self.terms.values()))

    def __str__(self) -> str:
        terms = ', '.join(f'{name} {value:.4g}' for name, value in self.terms.items())
        lines = [f'images: {", ".join(self.images)}', f'loss terms: {terms}']
        return '\n'.join(f'  {line}' for line in (*lines, *self.problems))


def random_state() -> dict[str, Tensor]:
    """The states of what a model draws from: torch, on the CPU and the present GPU."""
    state = dict(torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def diagnose(
    model: nn.Module, data: dict, state: dict, backward: bool = False
) -> Diagnosis:
    """Compute the losses of a batch once more, and look at every module's output.

    Args:
        model: the model, not wrapped, with the weights that the losses came from.
        data: the batch as the data loader gave it.
        state: the :func:`random_state` that the batch met.
        backward: whether to compute gradients as well; those of the model are lost.
    """
    names = {module: name for name, module in model.named_modules()}
    first: list[str] = []

    def look(module, inputs, output) -> None:
        if not first and not _is_finite(output):
            first.append(names[module] or type(module).__name__)

    handles = [module.register_forward_hook(look) for module in names]
    problems: list[str] = []
    on_gpu = 'cuda' in state and torch.cuda.is_available()
    # Replayed graphs call no module.
    eagerly = getattr(model, 'eagerly', nullcontext)
    with torch.random.fork_rng([torch.cuda.current_device()] if on_gpu else []):
        torch.set_rng_state(state['torch'].cpu())
        if on_gpu:
            torch.cuda.set_rng_state(state['cuda'].cpu())
        batch = model.data_preprocessor(data, True)
        with torch.set_grad_enabled(backward), eagerly():
            losses = model(**batch, mode='loss')
            loss, terms = model.parse_losses(losses)
    for handle in handles:
        handle.remove()
    if not _is_finite(batch['inputs']):
        problems.append('the images have values that are not finite')
    if first:
        problems.append(f'first module with an output not finite: {first[0]}')
    if getattr(losses, 'non_finite_costs', False):
        problems.append(BAD_MATCHING)
    if backward:
        model.zero_grad()
        loss.backward()
        problems += non_finite_gradients(model)
    return Diagnosis(
        images=[
            f'{sample.get("img_id")} ({sample.get("img_path")})'
            for sample in data['data_samples']
        ],
        terms={name: float(value.detach()) for name, value in terms.items()},
        problems=problems,
    )


def non_finite_gradients(model: nn.Module) -> list[str]:
    """The problem that some gradients are not finite, or none."""
    names = [
        name
        for name, parameter in model.named_parameters()
        if not _is_finite(parameter.grad)
    ]
    return [f'gradients that are not finite: {list_names(names)}'] if names else []


def non_finite_weights(model: nn.Module) -> list[str]:
    """Names of the parameters and buffers that are not finite."""
    return [name for name, value in model.state_dict().items() if not _is_finite(value)]


def _is_finite(output) -> bool:
    """Whether all floating-point tensors in a module's output are finite."""
    return all(
        bool(leaf.isfinite().all())
        for leaf in tree_leaves(output)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    )
