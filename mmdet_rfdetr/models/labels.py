"""Labels of objects, looked at before they index the outputs of a model."""

import functools

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
    if any(training) and isinstance(batch, dict):
        for sample in batch.get('data_samples') or ():
            if 'labels' in sample.get('gt_instances', ()):
                labels = sample.gt_instances.labels
                check_labels(labels, sample.metainfo, num_classes)


def check_labels(labels: Tensor, img_meta: dict, num_classes: int) -> None:
    """See that the model has outputs for the labels of an image.

    Labels on a GPU are not looked at: the host would wait for them.

    Args:
        labels: of the image.
        img_meta: to name it.
        num_classes: K.

    Raises:
        SettingError: names a label that is not in [0, K), and its image.
    """
    if labels.is_cuda:
        return
    wrong = [label for label in labels.tolist() if not 0 <= label < num_classes]
    if wrong:
        raise SettingError(
            f'An object of image {img_meta.get("img_path", img_meta.get("img_id"))} '
            f'has the label {wrong[0]}, and the labels of model.bbox_head.num_classes='
            f'{num_classes} are 0 to {num_classes - 1}: make num_classes the number of '
            'metainfo.classes, or correct the data set, or the step of its pipeline, '
            'that gives it.'
        )
