"""Many sub-nets from one forward: what each of them would say on its own.

The sub-nets of one size, patch and windows share backbone, neck and the scores of all
tokens; those with as many queries share a decoder run, of which every layer gives a
depth. The decoder runs once for each number of queries, since they attend to each
other. The products that remain have the shapes that they have in the model of a sub-net
alone, so their results are equal to the bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmdet.structures import SampleList
from torch import nn

from ..errors import SettingError
from ..matching import Stages
from .space import Subnet
from .supernet import set_subnet


def check_searchable(model: nn.Module) -> None:
    """Refuse a model whose sub-nets cannot be evaluated together.

    Raises:
        SettingError: it has task heads, or no search space.
    """
    if not hasattr(model, 'search_space'):
        raise SettingError(
            'The config has no model.search_space: give the one that the super-net was '
            'trained with, as configs/rfdetr_search_coco.py'
        )
    if heads := [*model.bbox_head.task_heads]:
        raise SettingError(
            f'{", ".join(heads)}: sub-nets are evaluated by their boxes alone; export '
            'some with tools/export_subnet.py, and test them one by one'
        )


@torch.no_grad()
def detect(
    model: nn.Module, batch: dict, subnets: Sequence[Subnet]
) -> Iterator[tuple[Subnet, SampleList]]:
    """Detect by each of some sub-nets of one size, patch and windows.

    Args:
        model: a super-net in evaluation mode.
        batch: as a loader gives it, with images of that size.
        subnets: whose detections are wanted.

    Yields:
        A sub-net and the samples of the batch with its ``pred_instances``. They are the
        same samples each time: take what is needed of them before the next ones.
    """
    set_subnet(model, subnets[0])
    data = model.data_preprocessor(batch, False)
    samples = data['data_samples']
    with model.step_context(), _scored_once(model.query_selection):
        levels = model.extract_feat(data['inputs'])
        for queries in sorted({each.num_queries for each in subnets}):
            wanted = [each for each in subnets if each.num_queries == queries]
            set_subnet(model, max(wanted))  # the deepest
            states, references, selected = model.forward_transformer(levels, samples)
            for each in wanted:
                logits, boxes = (selected['cls_scores'],), (selected['bbox_preds'],)
                if depth := each.num_layers:
                    state = states[depth - 1 : depth].clone()
                    logits, boxes = map(tuple, model.bbox_head(state, references))
                results = model.bbox_head.predict(Stages(logits, boxes), samples)
                yield each, model.add_pred_to_datasample(samples, results)


@contextmanager
def _scored_once(selection: nn.Module) -> Iterator[None]:
    """Keep the scores of the tokens: each number of queries ranks the same ones."""
    score, kept = selection.score, []

    def keep(rows: torch.Tensor) -> tuple:
        if not kept:
            kept.append(score(rows))
        return kept[0]

    selection.score = keep
    try:
        yield
    finally:
        del selection.score
