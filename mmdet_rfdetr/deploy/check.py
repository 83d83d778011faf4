"""A file beside the model: both see the same pictures, and are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from rfdetr_runtime import Metadata, find_objects, open_model, prepare
from torch import nn

from ..errors import ExplainedError
from .agreement import TOLERANCES, Agreement, table, undecided

BATCHES = 1, 2, 5
"""What a file of any batch is called with, in turn."""


class Reference:
    """What the model says of pictures, in float32.

    Args:
        model: the detector itself, not what was exported of it.
        metadata: of the file.
    """

    def __init__(self, model: nn.Module, metadata: Metadata) -> None:
        self.model = model
        self.metadata = metadata

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> list[tuple]:
        """Raw outputs, detections, and whether two tokens are nearly tied, by image.

        Args:
            images: (H, W, 3) uint8 in BGR.
        """
        official = replace(self.metadata, layout='official', background=None)
        scores = []
        watch = self.model.query_selection.fc_cls.register_forward_hook(
            lambda module, inputs, output: scores.append(output[0].amax(-1))
        )
        try:
            inputs = torch.from_numpy(prepare(images, official))
            found = self.model(inputs, mode='tensor')
        finally:
            watch.remove()
        names = dict(pred_boxes='dets', pred_logits='labels')
        outputs = {
            names.get(key, key.removeprefix('pred_')): values.numpy()
            for key, values in found.items()
            if key.startswith('pred_')
        }
        tied = undecided(
            scores[0].view(len(images), -1).numpy(), self.model.num_queries
        )
        sizes = [self.metadata.input_size] * len(images)
        objects = find_objects(outputs, official, sizes, full_masks=False)
        return [
            ({name: x[i] for name, x in outputs.items()}, objects[i], bool(tied[i]))
            for i in range(len(images))
        ]


def compare(
    path: str, reference: Reference, images: Sequence[np.ndarray], *, layout: str
) -> list[tuple[str, Agreement]]:
    """Run a file on pictures, in every batch that it takes.

    Args:
        path: of the file.
        reference: the model.
        images: (H, W, 3) uint8 in BGR.
        layout: whose outputs can be compared one by one is ``'official'``.

    Returns:
        Name and differences for each batch.
    """
    file = open_model(path)
    metadata = file.metadata
    tolerance = TOLERANCES[metadata.precision]
    raw = layout == 'official' and tolerance.boxes is not None
    expected = [one for image in images for one in reference([image])]
    rows = {}
    for name, places in parts(len(images), metadata.batch):
        try:
            outputs = file(prepare([images[i] for i in places], metadata))
        except Exception as error:  # each runtime has errors of its own
            raise ExplainedError(
                f'the file does not run on a {name}, and was removed: {error}'
            ) from error
        sizes = [metadata.input_size] * len(places)
        found = find_objects(outputs, metadata, sizes, full_masks=False)
        for number, place in enumerate(places):
            theirs, objects, tied = expected[place]
            one = Agreement()
            if raw:
                one.add_raw(theirs, {key: x[number] for key, x in outputs.items()})
            one.add_detections(objects, found[number])
            if tied and tolerance.in_order and not one.within(tolerance):
                one = Agreement(images=1, excused=1)
            rows[name] = rows.get(name, Agreement()).join(one)
    return list(rows.items())


def parts(count: int, batch: int | None) -> Iterator[tuple[str, list[int]]]:
    """Which pictures a file is called with together, and the name of the row."""
    if batch is not None:
        yield f'batch {batch}', list(range(count))
        return
    start = turn = 0
    while start < count:
        size = BATCHES[turn % len(BATCHES)]
        places = list(range(start, min(start + size, count)))
        yield f'batch {len(places)}', places
        start, turn = start + size, turn + 1


def require_agreement(rows: Sequence[tuple[str, Agreement]], precision: str) -> None:
    """See that every row is within the tolerance of a precision.

    Raises:
        ExplainedError: one is not.
    """
    tolerance = TOLERANCES[precision]
    whole = Agreement()
    for _, one in rows:
        whole = whole.join(one)
    # Near ties may be those of all the few pictures of a row.
    alone = [(name, replace(one, excused=0)) for name, one in rows]
    for name, one in (*alone, ('all', whole)):
        if not one.within(tolerance):
            raise ExplainedError(
                f'the file is not the model and was removed ({name}; {precision} '
                f'allows {tolerance}): {tolerance.else_do}\n{table(rows)}'
            )


MEANS = 'bbox_mAP', 'segm_mAP', 'keypoints_mAP'
"""Ends of the names of the figures that are compared."""


def compare_means(
    model: dict[str, float], file: dict[str, float], precision: str
) -> str:
    """Lines for the user on the figures that count.

    Args:
        model: figures of the model.
        file: figures of the file.
        precision: of the file.

    Raises:
        ExplainedError: they differ by more than the precision may.
    """
    tolerance = TOLERANCES[precision]
    lines = []
    for name in filter(lambda name: name.endswith(MEANS), model):
        ours, theirs = model[name], file.get(name, float('nan'))
        lines.append(f'{name}: model {ours:.4f}, file {theirs:.4f}')
        if not abs(ours - theirs) <= tolerance.mean_ap:
            raise ExplainedError(
                f'{lines[-1]}: {precision} may differ by {tolerance.mean_ap}, and the '
                f'file was removed: {tolerance.else_do}'
            )
    return '\n'.join(lines)
