"""Labels of objects, looked at before they index the outputs of a model."""

import functools
from collections.abc import Sequence

import torch
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor, nn

from ..errors import SettingError


def watch_labels(data_preprocessor: nn.Module, num_classes: int) -> None:
    """Check the labels of every training batch before they go to the device.

    A GPU would end the process with an assertion that names nothing.

    Args:
        data_preprocessor: of the model.
        num_classes: K.
    """
    data_preprocessor.register_forward_pre_hook(
        functools.partial(_check_batch, num_classes=num_classes)
    )


def _check_batch(_: nn.Module, arguments: tuple, num_classes: int) -> None:
    """Look at what a data preprocessor is called with: the batch, whether to train."""
    batch, *training = arguments
    if not any(training) or not isinstance(batch, dict):
        return
    samples: SampleList = [
        sample
        for sample in batch.get('data_samples') or ()
        if 'labels' in sample.get('gt_instances', ())
    ]
    if samples:
        join_labels(
            [sample.gt_instances for sample in samples],
            [sample.metainfo for sample in samples],
            num_classes,
        )


def join_labels(
    batch_gt_instances: InstanceList,
    batch_img_metas: Sequence[dict],
    num_classes: int,
) -> Tensor:
    """Join the labels of all images, and see that the model has outputs for them.

    Labels on a GPU are not looked at: the host would wait for them.

    Args:
        batch_gt_instances: with ``labels``.
        batch_img_metas: to name an image.
        num_classes: K.

    Returns:
        (T,) labels.

    Raises:
        SettingError: names a label that is not in [0, K), and its image.
    """
    labels = torch.cat([gt.labels for gt in batch_gt_instances])
    if labels.is_cuda:
        return labels
    numbers = labels.numpy()
    (wrong,) = ((numbers < 0) | (numbers >= num_classes)).nonzero()
    if len(wrong):
        parts = zip(batch_gt_instances, batch_img_metas, strict=True)
        meta = [meta for gt, meta in parts for _ in gt.labels][wrong[0]]
        raise SettingError(
            f'An object of image {meta.get("img_path", meta.get("img_id"))} has the '
            f'label {labels[wrong[0]].item()}, and the labels of '
            f'model.bbox_head.num_classes={num_classes} are 0 to {num_classes - 1}: '
            'make num_classes the number of metainfo.classes, or correct the data set, '
            'or the step of its pipeline, that gives it.'
        )
    return labels
