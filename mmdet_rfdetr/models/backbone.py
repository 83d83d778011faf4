"""The DINOv2 vision transformer with windowed attention."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.init import trunc_normal_
from torch.utils.checkpoint import checkpoint

from ..errors import SettingError, check_counts
from ..ops.resampling import resample_patch_kernel, resize_position_table

LAYER_NORM_EPS = 1e-6
"""Epsilon of every layer norm in the ViT."""


class DropPath(nn.Module):
    """Drop the whole residual branch of single rows of the batch axis.

    The batch axis of the windowed layout holds windows, so each window of an
    image draws for itself, as in the official package.

    Args:
        drop_prob: probability of dropping a row; may be changed between steps.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Zero some rows of ``x`` (M, ...) and scale the others, in training."""
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        return x / keep * torch.rand(shape, device=x.device).add(keep).floor().to(x)


class Attention(nn.Module):
    """Softmax attention with one packed product for query, key and value."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each row of ``x`` (M, tokens, C)."""
        rows, tokens, width = x.shape
        qkv = self.qkv(x).view(rows, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(rows, tokens, width))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, 4 * embed_dims)
        self.fc2 = nn.Linear(4 * embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with layer scale.

    Args:
        embed_dims: width C.
        num_heads: attention heads.
        drop_path_rate: 0 leaves the drop-path module out.
    """

    def __init__(self, embed_dims: int, num_heads: int, drop_path_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.attn = Attention(embed_dims, num_heads)
        self.layer_scale1 = nn.Parameter(torch.ones(embed_dims))
        self.norm2 = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self.mlp = MLP(embed_dims)
        self.layer_scale2 = nn.Parameter(torch.ones(embed_dims))
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor, windows: int) -> Tensor:
        """Transform windowed tokens.

        Args:
            x: (B * num_windows**2, tokens, C).
            windows: windows of an image whose tokens attend to each other; 1 keeps
                the attention inside each window.
        """
        rows, tokens, width = x.shape
        joined = self.norm1(x).view(rows // windows, -1, width)
        attended = self.attn(joined).view(rows, tokens, width)
        x = x + self.drop_path(self.layer_scale1 * attended)
        return x + self.drop_path(self.layer_scale2 * self.mlp(self.norm2(x)))


@MODELS.register_module()
class RFDETRBackbone(BaseModule):
    """DINOv2 ViT whose blocks attend within windows or over the whole image.

    The patch grid is cut in ``num_windows`` x ``num_windows`` windows once,
    after the position table was added, and each window gets its own copy of the
    class token. Windows are rows of the batch axis (image-major, then window
    rows). A block is global if its index is in ``out_indices`` and windowed
    otherwise; ``out_indices`` are also the numbers of blocks after which a
    feature map is taken. (Released weights depend on this offset by one: the map
    taken after three blocks comes before block 3, the first global one.)

    Only the blocks up to the last feature map are built.

    ``patch_size`` and ``num_windows`` are attributes that may change between steps. The
    kernel of the patches keeps the size that it was built with, and is resampled.

    Args:
        embed_dims: width C.
        num_heads: attention heads of every block.
        patch_size: side of a patch in pixels.
        num_windows: windows along each side of the image.
        out_indices: ascending; take a feature map after so many blocks.
        pos_embed_size: side P of the stored position grid, in patches.
        in_channels: channels of the image.
        num_registers: register tokens in each window.
        drop_path_rate: probability, the same for all blocks until a schedule
            changes it.
        frozen_stages: -1 freezes nothing, 0 the embeddings, n also the first n
            blocks, ``out_indices[-1]`` the whole encoder with its last norm.
        with_cp: recompute each block in the backward pass to save memory.
        init_cfg: mmengine's initialisation config, e.g. ``dict(type=
            'Pretrained', checkpoint=...)`` with a DINOv2 or RF-DETR file.

    Raises:
        SettingError: if two arguments do not fit each other.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_heads: int,
        patch_size: int,
        num_windows: int,
        out_indices: Sequence[int],
        pos_embed_size: int,
        in_channels: int = 3,
        num_registers: int = 0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        out_indices = tuple(out_indices)
        check_counts(
            backbone__num_heads=num_heads,
            backbone__patch_size=patch_size,
            backbone__num_windows=num_windows,
            backbone__pos_embed_size=pos_embed_size,
        )
        if embed_dims % num_heads:
            raise SettingError(
                f'embed_dims={embed_dims} does not divide by num_heads={num_heads}'
            )
        ascending = list(out_indices) == sorted(set(out_indices))
        if not out_indices or not ascending or out_indices[0] < 1:
            raise SettingError(
                f'out_indices={out_indices} must be ascending numbers of blocks, '
                'the first at least 1'
            )
        if not -1 <= frozen_stages <= out_indices[-1]:
            raise SettingError(
                f'frozen_stages={frozen_stages} must lie between -1 and '
                f'out_indices[-1]={out_indices[-1]}'
            )
        self.embed_dims = embed_dims
        self.patch_size = patch_size
        self.num_windows = num_windows
        self.out_indices = out_indices
        self.num_registers = num_registers
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pos_embed_size**2, embed_dims))
        if num_registers:
            registers = torch.zeros(1, num_registers, embed_dims)
            self.register_tokens = nn.Parameter(registers)
        # Unused by the network; kept so that a checkpoint can be given back whole.
        self.register_buffer('mask_token', torch.zeros(1, embed_dims))
        self.blocks = nn.ModuleList(
            Block(embed_dims, num_heads, drop_path_rate) for _ in range(out_indices[-1])
        )
        self.norm = nn.LayerNorm(embed_dims, eps=LAYER_NORM_EPS)
        self._reset_parameters()
        self._freeze()

    @property
    def size_divisor(self) -> int:
        """Pixels that both sides of an input must be a multiple of."""
        return self.patch_size * self.num_windows

    def _reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, self.cls_token, self.pos_embed]
        if self.num_registers:
            frozen.append(self.register_tokens)
        frozen += self.blocks[: self.frozen_stages]
        if self.frozen_stages == self.out_indices[-1]:
            frozen.append(self.norm)
        for part in frozen:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute feature maps at the stride of a patch.

        Args:
            images: (B, channels, H, W), normalised.

        Returns:
            One (B, C, H / patch_size, W / patch_size) map for each of
            ``out_indices``.

        Raises:
            SettingError: if a side does not divide by ``size_divisor``.
        """
        grid = self._grid(images)
        x = self._embed(images, grid)
        outputs = []
        for index, block in enumerate(self.blocks):
            windows = self.num_windows**2 if index in self.out_indices else 1
            if self.with_cp and self.training:
                x = checkpoint(block, x, windows, use_reentrant=False)
            else:
                x = block(x, windows)
            if index + 1 in self.out_indices:
                outputs.append(self._feature_map(x, grid))
        return tuple(outputs)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        if height % self.size_divisor or width % self.size_divisor:
            raise SettingError(
                f'input of {height} x {width} pixels: both sides must be multiples of '
                f'{self.size_divisor} (patch_size {self.patch_size} x num_windows '
                f'{self.num_windows}); resize the images or set '
                f'data_preprocessor.pad_size_divisor={self.size_divisor}'
            )
        return height // self.patch_size, width // self.patch_size

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) to windowed tokens (B * num_windows**2, tokens, C)."""
        position = self.position_table(grid)
        patches = self._patches(images.to(self.patch_embed.weight.dtype))
        patches = patches.flatten(2).transpose(1, 2) + position[:, 1:]
        windows = self._to_windows(patches, grid)
        # Each window has a class token and registers before its patches.
        tokens = [self.cls_token + position[:, :1]]
        if self.num_registers:
            tokens.append(self.register_tokens)
        tokens = [x.expand(windows.shape[0], -1, -1) for x in tokens]
        return torch.cat((*tokens, windows), dim=1)

    def _patches(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, h, w)."""
        layer, side = self.patch_embed, self.patch_size
        if side == layer.kernel_size[0]:
            return layer(images)
        kernel = resample_patch_kernel(layer.weight, side)
        return F.conv2d(images, kernel, layer.bias, stride=side)

    def position_table(self, grid: tuple[int, int]) -> Tensor:
        """The position table for a grid of patches (h, w): (1, 1 + h*w, C)."""
        return resize_position_table(self.pos_embed, grid)

    def _to_windows(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, h*w, C) to (B * num_windows**2, patches of a window, C)."""
        side, width = self.num_windows, self.embed_dims
        rows, columns = grid[0] // side, grid[1] // side
        patches = patches.view(-1, side, rows, side, columns, width)
        return patches.transpose(2, 3).reshape(-1, rows * columns, width)

    def _feature_map(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Windowed tokens to a normalised map (B, C, h, w)."""
        side, width = self.num_windows, self.embed_dims
        rows, columns = grid[0] // side, grid[1] // side
        patches = self.norm(x[:, 1 + self.num_registers :])
        patches = patches.view(-1, side, side, rows, columns, width).transpose(2, 3)
        return patches.reshape(-1, *grid, width).permute(0, 3, 1, 2)
