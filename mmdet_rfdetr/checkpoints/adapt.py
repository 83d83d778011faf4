"""Fitting single tensors of a checkpoint to the sizes of a model.

The rules are those of the official loader, with two additions: 91 rows for COCO's
category ids become the 80 rows of MMDetection's labels, and the patch kernel of a
plain DINOv2 backbone is resampled.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..ops.resampling import resample_patch_kernel, resize_position_table
from . import coco_rows

Shape = tuple[int, ...]


def choose_class_rows(
    num_rows: int, num_classes: int, class_names: Sequence[str] | None
) -> tuple[list[int], str]:
    """Choose the class rows of a file for a model with another number of classes.

    - 91 rows for 80 classes, in a file whose class names are COCO's or unknown: the
      row of each label's category id.
    - More rows than classes: the first ones. A file that was fine-tuned on C classes
      has C + 1 rows, the last of them unused, so it gives its C classes to a model
      that has as many.
    - Fewer: the rows again and again, so that no class starts from random numbers.

    Args:
        num_rows: Rows of the file's class layer.
        num_classes: Rows of the model's class layer.
        class_names: Class names of the file, None if it has none.

    Returns:
        The row for each class of the model, and a few words on the choice.
    """
    if num_classes == len(coco_rows.CATEGORY_IDS) and coco_rows.are_rows_of_ids(
        num_rows, class_names
    ):
        return list(coco_rows.CATEGORY_IDS), 'rows picked by COCO category id'
    if num_rows > num_classes:
        return list(range(num_classes)), f'first {num_classes} class rows'
    return [i % num_rows for i in range(num_classes)], 'class rows repeated'


def fit_query_table(table: Tensor, shape: Shape, *, keep_groups: bool) -> Tensor:
    """Take the queries of a smaller model from a table of learned queries.

    Args:
        table: (G, Q, D) of the file.
        shape: (G, Q, D) of the model.
        keep_groups: Take the first queries of each of the first groups. False takes
            the first rows of all, as the official loader does with a file that does
            not say how many queries it was trained with; only the first group, the
            one used for prediction, then surely holds what it held before.

    Returns:
        The table of the model.

    Raises:
        CheckpointError: the file has too few groups or queries.
    """
    groups, queries = shape[:2]
    file_groups, file_queries = table.shape[:2]
    settings = (('groups', groups, file_groups), ('queries', queries, file_queries))
    lower = [f'model.num_{name}={own}' for name, ours, own in settings if ours > own]
    if lower:
        raise CheckpointError(
            f'The checkpoint has {file_groups} groups of {file_queries} queries, too '
            f'few for the model with {groups} groups of {queries}: set '
            f'{" and ".join(lower)}.'
        )
    if keep_groups:
        return table[:groups, :queries]
    return table.flatten(0, 1)[: groups * queries].unflatten(0, (groups, queries))


def fit_positions(table: Tensor, shape: Shape) -> Tensor:
    """Resize a position table.

    Args:
        table: (1, 1 + P*P, C) of the file.
        shape: (1, 1 + P*P, C) of the model.
    """
    side = math.isqrt(shape[1] - 1)
    return resize_position_table(table, (side, side))


def fit_patch_kernel(kernel: Tensor, shape: Shape) -> Tensor:
    """Fit a patch kernel to another patch size and number of image channels.

    From RGB, one channel takes the mean over the three. More take R, G, B, R, ...
    scaled by 3 over their number, which keeps the size of the sum.

    Args:
        kernel: (C, channels, p, p) of the file.
        shape: (C, channels, p, p) of the model.

    Raises:
        CheckpointError: the channels differ and those of the file are not RGB.
    """
    before, after = kernel.shape[1], shape[1]
    if before != after:
        if before != 3:
            raise CheckpointError(
                f'The checkpoint takes images of {before} channels, the model of '
                f'{after}: set model.backbone.in_channels={before}.'
            )
        if after == 1:
            kernel = kernel.mean(dim=1, keepdim=True)
        else:
            kernel = kernel[:, torch.arange(after) % 3] * (3 / after)
    return resample_patch_kernel(kernel, shape[-1])
