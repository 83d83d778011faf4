"""Multi-scale training: one size for a whole batch."""

import random
from collections.abc import Sequence

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..ops.transfer import upload
from .sizes import multi_scale_sizes

IN_PIXELS = {'bboxes'}
"""Fields of instances whose last axis is x and y of the batch, once or twice."""


@MODELS.register_module()
class RFDETRBatchMultiScale(nn.Module):
    """Resize every training batch to a size drawn for its optimizer step.

    The draw is Python's ``random.Random(step).choice(sizes)``: the same on all
    ranks, for all micro-batches of a step, and after resuming. The pipeline should
    hand over the largest size, ``RFDETRResize(offsets=(5,), ...)``. The batch
    becomes square, as in the official package, also where it was padded.

    Boxes, ``img_shape`` and ``batch_input_shape`` follow, so coordinates relative
    to the image stay what they were; masks keep their resolution.

    Args:
        image_size: the size without multi-scale, in pixels.
        size_divisor: patch size times windows.
        offsets: see :func:`~mmdet_rfdetr.data.sizes.multi_scale_sizes`.
    """

    antialias = False

    def __init__(
        self,
        image_size: int,
        size_divisor: int,
        offsets: Sequence[int] = tuple(range(-5, 6)),
    ) -> None:
        super().__init__()
        self.sizes = multi_scale_sizes(image_size, size_divisor, offsets)

    def size_at(self, step: int) -> int:
        """The size of all batches of optimizer step ``step``."""
        return random.Random(step).choice(self.sizes)

    def forward(
        self, inputs: Tensor, data_samples: list[DetDataSample]
    ) -> tuple[Tensor, list[DetDataSample]]:
        """Resize a batch.

        Args:
            inputs: (B, 3, H, W), normalised.
            data_samples: with ``img_shape`` and ``gt_instances.bboxes``, xyxy.

        Returns:
            The batch, (B, 3, size, size), and the samples, changed in place.
        """
        size = self.size_at(optimizer_step())
        old, new = tuple(inputs.shape[-2:]), (size, size)
        if old == new:
            return inputs, data_samples
        inputs = F.interpolate(inputs, new, mode='bilinear', antialias=self.antialias)
        for sample in data_samples:
            _resize_sample(sample, old, size)
        return inputs, data_samples


def optimizer_step() -> int:
    """Optimizer steps that the current run has made, 0 outside a run."""
    hub = MessageHub.get_current_instance()
    # Outside a run, or before its first iteration, the hub knows neither.
    return hub.get_info('iter', 0) // hub.get_info('accumulative_counts', 1)


def _resize_sample(sample: DetDataSample, old: tuple[int, int], size: int) -> None:
    """Scale what a sample states in pixels of the batch.

    The image's own size is rounded up, as resizing the official padding mask to the
    nearest pixel does; boxes are scaled by what it really grew.
    """
    height, width = sample.img_shape[:2]
    new_height, new_width = -(-height * size // old[0]), -(-width * size // old[1])
    x_scale, y_scale = new_width / width, new_height / height
    meta = dict(img_shape=(new_height, new_width))
    meta |= dict.fromkeys(('batch_input_shape', 'pad_shape'), (size, size))
    if 'scale_factor' in sample:
        x_factor, y_factor = sample.scale_factor
        meta['scale_factor'] = (x_factor * x_scale, y_factor * y_scale)
    sample.set_metainfo(meta)
    for name in ('gt_instances', 'ignored_instances'):
        scale_instances(sample.get(name, {}), (x_scale, y_scale))


def scale_instances(instances: InstanceData, scale: tuple[float, float]) -> None:
    """Scale what instances state in pixels, by factors of x and y."""
    for key in IN_PIXELS.intersection(instances.keys()):
        values = instances[key]
        factors = scale * (values.shape[-1] // 2)
        instances[key] = values * upload(factors, values.device, values.dtype)
