"""ViT and projector of a deployed model: all feature maps as one tensor."""

import torch
from torch import Tensor, nn

from ..ops.resampling import resize_position_table
from .backbone import RFDETRBackbone
from .projector import RFDETRProjector


class DeployedBackbone(RFDETRBackbone):
    """:class:`RFDETRBackbone` that normalises and orders all its maps at once.

    What the patches are added to (positions, class token and registers) is constant
    for one size of the image, and is kept in the order of the windows.

    Attributes:
        starts: these tokens for each grid and device. They are never dropped, because
            CUDA graphs read them where they lie.
    """

    starts: dict[tuple, Tensor]

    @classmethod
    def take_over(cls, backbone: RFDETRBackbone) -> None:
        """Change a backbone in place; a block must not overwrite a feature map."""
        backbone.__class__ = cls
        backbone.starts = {}

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, channels, H, W) to the maps side by side, (B, L*C, h, w)."""
        grid = self._grid(images)
        x = self._embed(images, grid)
        taken = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.out_indices:
                taken.append(x)
        joined = torch.cat(taken, dim=-1)
        normed = self.norm(joined.unflatten(-1, (len(taken), -1))).flatten(-2)
        patches = self._windows_of(normed, grid).transpose(2, 3)
        return patches.reshape(len(images), *grid, -1).permute(0, 3, 1, 2)

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        x = self._get_start(grid, images.device).repeat(len(images), 1, 1)
        patches = self.patch_embed(images.to(self.patch_embed.weight.dtype))
        side = self.num_windows
        patches = patches.unflatten(2, (side, -1)).unflatten(4, (side, -1))
        self._windows_of(x, grid).add_(patches.permute(0, 2, 4, 3, 5, 1))
        return x

    def _get_start(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        if torch.compiler.is_compiling():
            # What CUDA graphs compute is overwritten and cannot be kept.
            return self._make_start(grid)
        key = grid, device
        if key not in self.starts:
            self.starts[key] = self._make_start(grid)
        return self.starts[key]

    def _make_start(self, grid: tuple[int, int]) -> Tensor:
        """Tokens of one image without its patches, (num_windows**2, tokens, C)."""
        position = resize_position_table(self.pos_embed, grid)
        return self._complete(self._to_windows(position[:, 1:], grid), position)

    def _windows_of(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """View of the patches, (B, window rows, window columns, rows, columns, C)."""
        side = self.num_windows
        rows, columns = grid[0] // side, grid[1] // side
        patches = x[:, 1 + self.num_registers :]
        return patches.unflatten(1, (rows, columns)).unflatten(0, (-1, side, side))


class DeployedProjector(nn.Module):
    """:class:`RFDETRProjector` of maps that are joined already."""

    def __init__(self, projector: RFDETRProjector) -> None:
        super().__init__()
        self.stages = projector.stages

    def forward(self, joined: Tensor) -> tuple[Tensor, ...]:
        """(B, L*C, h, w), the maps side by side, to L levels (B, D, h_l, w_l)."""
        levels = []
        for stage in self.stages:
            x = joined
            if not all(isinstance(branch, nn.Identity) for branch in stage.branches):
                maps = joined.chunk(len(stage.branches), dim=1)
                pairs = zip(stage.branches, maps, strict=True)
                x = torch.cat([branch(part) for branch, part in pairs], dim=1)
            levels.append(stage.norm(stage.c2f(x)))
        return tuple(levels)
