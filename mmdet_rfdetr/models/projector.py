"""The neck: ViT feature maps to the levels that the decoder attends to."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..errors import SettingError, check_counts


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, h, w), at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PointwiseConv(nn.Conv2d):
    """Convolution of single positions, without bias, as a matrix product.

    With the channels last, as the norm behind it needs them anyway, that is faster
    than a CPU's convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h, w), channels last in memory."""
        x = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1))
        return x.permute(0, 3, 1, 2)


class ConvNormAct(nn.Module):
    """Convolution without bias, channel layer norm, activation."""

    activation = staticmethod(F.silu)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        convolution = PointwiseConv if kernel_size == stride == 1 else nn.Conv2d
        options = dict(stride=stride, padding=kernel_size // 2, bias=False)
        self.conv = convolution(in_channels, out_channels, kernel_size, **options)
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h / stride, w / stride)."""
        return self.activation(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    """Two 3x3 convolutions without a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNormAct(channels, channels, 3)
        self.cv2 = ConvNormAct(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return self.cv2(self.cv1(x))


class C2f(nn.Module):
    """Split the channels, chain bottlenecks on one half, join all results."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.cv1 = ConvNormAct(in_channels, 2 * half, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(half) for _ in range(num_blocks))
        self.cv2 = ConvNormAct((2 + num_blocks) * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) to (B, C_out, h, w)."""
        parts = list(self.cv1(x).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return self.cv2(torch.cat(parts, dim=1))


def _upsample(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)


class Downsample(ConvNormAct):
    """Half the resolution."""

    activation = staticmethod(F.relu)

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2)


SCALES = {
    'P3': (_upsample, lambda channels: channels // 2),
    'P4': (lambda channels: nn.Identity(), lambda channels: channels),
    'P5': (Downsample, lambda channels: channels),
}
"""Level name to (branch that resamples one ViT map, its output channels)."""


class ProjectorStage(nn.Module):
    """One level: every ViT map resampled, joined, and projected to D channels."""

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, scale: str, num_blocks: int
    ) -> None:
        super().__init__()
        make_branch, width = SCALES[scale]
        self.branches = nn.ModuleList(make_branch(c) for c in in_channels)
        self.c2f = C2f(sum(map(width, in_channels)), out_channels, num_blocks)
        self.norm = ChannelLayerNorm(out_channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, h, w) to one (B, D, h * scale, w * scale)."""
        resampled = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return self.norm(self.c2f(torch.cat(resampled, dim=1)))


@MODELS.register_module()
class RFDETRProjector(BaseModule):
    """Multi-scale projector.

    Args:
        in_channels: channels of each ViT map.
        out_channels: width D of the levels.
        scales: levels in ascending order: ``'P3'`` is twice the resolution of the
            ViT maps, ``'P4'`` the same, ``'P5'`` half of it.
        num_blocks: bottlenecks of each level.
        init_cfg: mmengine's initialisation config.

    Raises:
        SettingError: if ``scales`` is empty, unknown or not ascending.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        out_channels: int,
        scales: Sequence[str] = ('P4',),
        num_blocks: int = 3,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(neck__out_channels=out_channels)
        if not scales or list(scales) != sorted(set(scales) & set(SCALES)):
            raise SettingError(
                f'scales={tuple(scales)} must be some of {tuple(SCALES)} in ascending '
                'order'
            )
        self.stages = nn.ModuleList(
            ProjectorStage(in_channels, out_channels, scale, num_blocks)
            for scale in scales
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, h, w) of the ViT to L levels (B, D, h_l, w_l)."""
        return tuple(stage(maps) for stage in self.stages)
