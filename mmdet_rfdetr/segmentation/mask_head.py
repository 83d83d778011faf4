"""Instance masks: a map shared by all queries and one vector a query."""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import SettingError
from ..matching import Matches, Stages, Targets
from ..models.task_head import Features, ModelSizes, TaskHead
from .mask_costs import add_mask_costs
from .mask_results import full_size_masks
from .point_sampling import MaskFeatures, PointSource, TargetMasks, random_points


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
class RFDETRMaskHead(TaskHead):
    """Mask of a query as the product of its vector with a map of the image.

    The map is the first level of the projector at a quarter of the input's size.
    One block refines it for every decoder layer, in turn; all other parameters
    are shared by the layers. The encoder's masks use the map before all blocks.

    The matching adds ``mask_weight`` times the cross-entropy and ``dice_weight`` times
    the dice loss of the masks at random points, see :func:`add_mask_costs`; in a config
    these settings stand in ``train_cfg.assigner``.

    Args:
        sizes: of the model.
        loss_mask: config of :class:`RFDETRPointMaskLoss`; it stands in ``bbox_head``.
        downsample_ratio: size of the input over the size of the masks.
        mask_weight: weight of the cross-entropy in the matching.
        dice_weight: weight of the dice loss in the matching.
        point_ratio: cells of the predicted mask for each random point of the matching.
        points: source of these points, called for each stage with the name
            ``matcher/<stage>`` and the shape (1, P, 2).
        init_cfg: mmengine's initialisation config.

    Raises:
        SettingError: if there is no loss.
    """

    name = 'mask_head'
    exported = 'masks'
    exported_results = ('masks',)
    bbox_head_keys = ('loss_mask',)
    assigner_keys = ('mask_weight', 'dice_weight', 'point_ratio', 'points')

    def __init__(
        self,
        *,
        sizes: ModelSizes,
        loss_mask: dict | None = None,
        downsample_ratio: int = 4,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        point_ratio: int = 16,
        points: PointSource = random_points,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(sizes=sizes, init_cfg=init_cfg)
        if loss_mask is None:
            raise SettingError(
                'mask_head and bbox_head.loss_mask=None do not go together: set '
                "bbox_head.loss_mask=dict(type='RFDETRPointMaskLoss') for instance "
                'segmentation, or mask_head=None for detection'
            )
        self.loss_mask = MODELS.build(loss_mask)
        self.downsample_ratio = downsample_ratio
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.point_ratio = point_ratio
        self.points = points
        width = sizes.embed_dims
        self.blocks = nn.ModuleList(
            SpatialBlock(width) for _ in range(sizes.num_layers)
        )
        self.spatial_features_proj = nn.Conv2d(width, width, 1)
        self.query_features_block = QueryBlock(width)
        self.query_features_proj = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(1))

    def check_data(self, data_preprocessor: nn.Module) -> None:
        """Refuse to pad true masks."""
        if any(
            getattr(part, 'pad_mask', False) for part in data_preprocessor.modules()
        ):
            raise SettingError(
                'data_preprocessor or one of its batch_augments has pad_mask=True with '
                'mask_head: set it to False, masks are compared with the part of the '
                'batch that is their image'
            )

    def forward(self, stages: Stages, features: Features) -> Stages:
        """Compute the masks of every stage, as factors."""
        size = [side // self.downsample_ratio for side in features.image_size]
        x = F.interpolate(
            features.levels[0], size=size, mode='bilinear', align_corners=False
        )
        encoder = []
        if features.tokens is not None:
            encoder.append(self._project(x, features.tokens))
        states = features.hidden_states.unbind()
        skipped = features.num_layers - len(states)
        masks = []
        for layer, block in enumerate(self.blocks[: features.num_layers]):
            x = block(x)
            if layer >= skipped:
                masks.append(self._project(x, states[layer - skipped]))
        masks += encoder
        return stages.with_task(self.name, masks)

    def _project(self, x: Tensor, query: Tensor) -> MaskFeatures:
        return MaskFeatures(
            spatial_features=self.spatial_features_proj(x),
            query_features=self.query_features_proj(self.query_features_block(query)),
            bias=self.bias,
        )

    def outputs(self, stages: Stages, stage: int) -> dict[str, Tensor | dict]:
        """``pred_masks`` (B, N, h, w) raw; their factors, as a dict, in training."""
        masks = stages.tasks[self.name][stage]
        return dict(pred_masks=masks.as_dict() if self.training else masks.of_all())

    def describe(self, dataset_meta: dict) -> dict[str, str]:
        """The task of an exported file."""
        return dict(task='segment')

    def get_targets(
        self, batch_gt_instances: InstanceList, batch_img_metas: list[dict]
    ) -> TargetMasks:
        """Join the masks of all images."""
        return TargetMasks.from_instances(
            batch_gt_instances, batch_img_metas, self.bias.device
        )

    def add_costs(
        self, costs: Tensor, stages: Stages, targets: Targets, objects: Tensor
    ) -> None:
        """Add the costs of the masks."""
        add_mask_costs(
            costs.split(stages.sizes, dim=2),
            stages.tasks[self.name],
            targets.tasks[self.name],
            objects,
            mask_weight=self.mask_weight,
            dice_weight=self.dice_weight,
            point_ratio=self.point_ratio,
            points=self.points,
        )

    def loss(
        self, stages: Stages, targets: Targets, matches: Matches
    ) -> dict[str, Tensor]:
        """Sum ``loss_mask`` and ``loss_dice`` over the pairs of each stage."""
        return self.loss_mask(
            stages.tasks[self.name], targets.tasks[self.name], matches
        )

    def add_results(
        self,
        instances: InstanceData,
        made: MaskFeatures,
        image: int,
        queries: Tensor,
        img_meta: dict,
        *,
        rescale: bool,
    ) -> None:
        """Add ``masks``, see :func:`full_size_masks`."""
        instances.masks = full_size_masks(
            made, image, queries, img_meta, rescale=rescale
        )
