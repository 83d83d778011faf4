"""Normalisation of images with any number of channels."""

from collections.abc import Sequence

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from torch import Tensor

from ..errors import SettingError


@MODELS.register_module()
class RFDETRDataPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` for images of other than three channels.

    Use it with ``model.backbone.in_channels`` and a loader that keeps all channels,
    such as ``LoadImageFromFile(color_type='unchanged')``.

    Args:
        channels: of the images.
        mean: of the channels; a shorter list is repeated, as the official package does.
        std: likewise.
        bgr_to_rgb: exchange the first and the third channel, keep the others.
        **kwargs: see mmdet.

    Raises:
        SettingError: if ``mean`` and ``std`` differ in length.
    """

    def __init__(
        self,
        *,
        channels: int,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        bgr_to_rgb: bool = False,
        **kwargs,
    ) -> None:
        if len(mean) != len(std):
            raise SettingError(f'mean has {len(mean)} numbers and std {len(std)}')
        super().__init__(**kwargs)
        self.channels = channels
        for name, values in (('mean', mean), ('std', std)):
            cycled = torch.tensor(values)[torch.arange(channels) % len(values)]
            self.register_buffer(name, cycled.float().view(-1, 1, 1), persistent=False)
        self._enable_normalize = True
        swap = bgr_to_rgb and channels >= 3
        self._order = [2, 1, 0, *range(3, channels)] if swap else None

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise, pad and stack; see mmdet.

        Raises:
            SettingError: if the images have another number of channels.
        """
        inputs = data['inputs']
        ordered = [self._ordered(image) for image in inputs]
        if isinstance(inputs, Tensor):
            ordered = torch.stack(ordered)
        return super().forward({**data, 'inputs': ordered}, training)

    def _ordered(self, image: Tensor) -> Tensor:
        if len(image) != self.channels:
            raise SettingError(
                f'an image has {len(image)} channels, and model.data_preprocessor.'
                f'channels={self.channels}: load the images with all their channels '
                "(LoadImageFromFile with color_type='unchanged'), or set channels and "
                'model.backbone.in_channels to what they have'
            )
        return image if self._order is None else image[self._order]
