"""What a data set holds: figures of it, and a few samples to look at."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmengine.dataset import BaseDataset
from mmengine.structures import InstanceData

from ..errors import BadImageError

_CLASSES = 20  # that a table names


def count(dataset: BaseDataset) -> tuple[dict[str, int | str], Counter[int]]:
    """Count what training or evaluation will see.

    Returns:
        Figures by what they are, and the number of objects of each label.
    """
    sizes, counts, sides, masks, points, ignored = [], [], [], 0, 0, 0
    labels = Counter()
    for info in map(dataset.get_data_info, range(len(dataset))):
        objects = [each for each in info['instances'] if not each['ignore_flag']]
        ignored += len(info['instances']) - len(objects)
        sizes.append((info['width'], info['height']))
        counts.append(len(objects))
        masks += sum(bool(each['mask']) for each in objects)
        points += sum(bool(np.any(each.get('keypoints', 0))) for each in objects)
        labels.update(each['bbox_label'] for each in objects)
        for left, top, right, bottom in (each['bbox'] for each in objects):
            sides.append(max(right - left, bottom - top))
    ends = dict.fromkeys((min(sizes, key=np.prod), max(sizes, key=np.prod)))
    return {
        'images': len(counts),
        'without objects': counts.count(0),
        'width x height': ' to '.join(f'{width} x {height}' for width, height in ends),
        'objects': sum(counts),
        'with a mask': masks,
        'with points': points,
        'crowds and ignored': ignored,
        'objects an image': _spread(counts),
        'longer side of a box': _spread(sides),
    }, labels


def _spread(values: Sequence[float]) -> str:
    """The median and the ends."""
    if not values:
        return '-'
    return f'{np.median(values):.0f} ({min(values):.0f} to {max(values):.0f})'


def table(columns: Mapping[str, tuple[dict, Counter]], classes: Sequence[str]) -> str:
    """Lay out what :func:`count` has found in each split.

    Args:
        columns: by split.
        classes: names by label; of many, those with most objects are shown.
    """
    figures, labels = zip(*columns.values(), strict=True)
    total = sum(labels, Counter())
    shown = sorted(label for label, _ in total.most_common(_CLASSES))
    rows = [['', *columns]]
    rows += [[what, *(str(each[what]) for each in figures)] for what in figures[0]]
    rows += [[classes[key], *(str(each[key]) for each in labels)] for key in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if rest := len(total) - len(shown):
        lines.append(f'and {rest} more classes with objects')
    if len(classes) > len(total):
        lines.append(f'{len(classes) - len(total)} classes without objects')
    return '\n'.join(lines)


def samples(
    dataset: BaseDataset, annotations: dict, number: int = 6
) -> Iterator[tuple[np.ndarray, InstanceData]]:
    """Some images with what they are annotated with.

    Args:
        dataset: its images come in another order, the same each time, those without
            objects last.
        annotations: config of the transform that loads boxes and masks.
        number: how many at most; files that cannot be read are passed over.

    Yields:
        The image (H, W, 3) uint8 BGR, and ``bboxes`` (T, 4) xyxy in its pixels,
        ``labels`` and, where the transform loads them, ``masks``, or ``keypoints`` and
        ``keypoints_visible``.
    """
    steps = [*map(TRANSFORMS.build, (dict(type='RFDETRLoadImage'), annotations))]
    infos = [*map(dataset.get_data_info, range(len(dataset)))]
    infos = random.Random(0).sample(infos, len(infos))
    for results in sorted(infos, key=lambda info: not info['instances']):
        with suppress(BadImageError):
            for step in steps:
                results = step(results)
            boxes = results['gt_bboxes']
            found = dict(bboxes=boxes.tensor)
            found['labels'] = torch.as_tensor(results['gt_bboxes_labels'])
            if 'gt_masks' in results:
                found['masks'] = results['gt_masks']
            if hasattr(boxes, 'points'):
                found['keypoints'] = boxes.points[..., :2]
                found['keypoints_visible'] = boxes.points[..., 2]
            yield results['img'].clip(0, 255).astype(np.uint8), InstanceData(**found)
            number -= 1
        if not number:
            return
