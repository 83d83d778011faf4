"""Instance masks: a map shared by all queries and one vector a query."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from .point_sampling import MaskFeatures


class SpatialBlock(nn.Module):
    """Half a ConvNeXt block: depthwise convolution, norm, one linear layer, GELU.

    Args:
        embed_dims: width D.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.pwconv1 = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) to the same shape."""
        # Through a view of the weight its gradient gets the weight's strides;
        # otherwise data-parallel training warns and copies.
        weight = self.dwconv.weight.squeeze(1).unsqueeze(1)
        change = F.conv2d(x, weight, self.dwconv.bias, padding=1, groups=len(weight))
        change = self.norm(change.permute(0, 2, 3, 1))
        # The activation stands after the linear layer, and no second one follows.
        change = F.gelu(self.pwconv1(change))
        return x + change.permute(0, 3, 1, 2)


class QueryBlock(nn.Module):
    """Residual feed-forward block, normalised first.

    Args:
        embed_dims: width D; the hidden layer is four times as wide.
    """

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(embed_dims)
        self.layers = nn.Sequential(
            nn.Linear(embed_dims, 4 * embed_dims),
            nn.GELU(),
            nn.Linear(4 * embed_dims, embed_dims),
        )

    def forward(self, query: Tensor) -> Tensor:
        """(B, N, D) to the same shape."""
        return query + self.layers(self.norm_in(query))


@MODELS.register_module()
class RFDETRMaskHead(BaseModule):
    """Mask of a query as the product of its vector with a map of the image.

    The map is the first level of the projector at a quarter of the input's size.
    One block refines it for every decoder layer, in turn; all other parameters
    are shared by the layers. The encoder's masks use the map before all blocks.

    Args:
        embed_dims: width D.
        num_blocks: decoder layers.
        downsample_ratio: size of the input over the size of the masks.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        *,
        embed_dims: int,
        num_blocks: int,
        downsample_ratio: int = 4,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.downsample_ratio = downsample_ratio
        self.blocks = nn.ModuleList(SpatialBlock(embed_dims) for _ in range(num_blocks))
        self.spatial_features_proj = nn.Conv2d(embed_dims, embed_dims, 1)
        self.query_features_block = QueryBlock(embed_dims)
        self.query_features_proj = nn.Linear(embed_dims, embed_dims)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        level: Tensor,
        image_size: tuple[int, int],
        hidden_states: Sequence[Tensor],
        enc_tokens: Tensor,
    ) -> list[MaskFeatures]:
        """Compute the masks of every stage, as factors.

        Args:
            level: (B, D, h_0, w_0), the first level of the projector.
            image_size: (height, width) of the padded input.
            hidden_states: (B, N, D) of each decoder layer.
            enc_tokens: (B, N_enc, D), the selected tokens.

        Returns:
            Factors of each decoder layer, then of the encoder.
        """
        x = self._resize(level, image_size)
        encoder = self._project(x, enc_tokens)
        layers = []
        blocks = self.blocks[: len(hidden_states)]
        for block, query in zip(blocks, hidden_states, strict=True):
            x = block(x)
            layers.append(self._project(x, query))
        return [*layers, encoder]

    def last_layer(
        self,
        level: Tensor,
        image_size: tuple[int, int],
        hidden_state: Tensor,
        num_layers: int,
    ) -> MaskFeatures:
        """Compute the masks of the last layer alone.

        Args:
            level: as in the call.
            image_size: as in the call.
            hidden_state: (B, N, D) of the last decoder layer.
            num_layers: decoder layers.
        """
        x = self._resize(level, image_size)
        for block in self.blocks[:num_layers]:
            x = block(x)
        return self._project(x, hidden_state)

    def _resize(self, level: Tensor, image_size: tuple[int, int]) -> Tensor:
        size = [side // self.downsample_ratio for side in image_size]
        return F.interpolate(level, size=size, mode='bilinear', align_corners=False)

    def _project(self, x: Tensor, query: Tensor) -> MaskFeatures:
        return MaskFeatures(
            spatial_features=self.spatial_features_proj(x),
            query_features=self.query_features_proj(self.query_features_block(query)),
            bias=self.bias,
        )
